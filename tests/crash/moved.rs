//! A killed daemon is followed by one with another exec root and another parent of cgroups: what runs is found where it is.

use rustix::process::Signal;
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls;
use crate::with_busybox;

fn cgroups_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

#[track_caller]
fn is_gone(d: &Daemon, id: &str, pid: u32) {
    assert!(eventually(PATIENCE, || !process::alive(pid)), "{pid} lives on");
    let groups = || testkit::census::cgroups(d.cgroup()).into_iter().filter(|g| g.ends_with(id)).collect::<Vec<_>>();
    assert!(eventually(PATIENCE, || groups().is_empty()), "{:?}", groups());
}

#[test]
fn what_runs_is_found_where_it_was_started() {
    let mut d = with_busybox();
    let ids = ["kept", "orphan", "away"].map(|name| calls::run(&d, name, &calls::script("sleep 1000")));
    let runs = ["kept", "orphan", "away"].map(|name| calls::run_of(&d, name));
    let pids = runs.each_ref().map(|run| run.0);
    let (elsewhere, parent) = (d.path("elsewhere").display().to_string(), format!("/{}/other", d.cgroup()));
    d.kill9();
    assert!(process::signal(pids[2], Signal::KILL));
    d.again_with(&["--exec-root", &elsewhere, "--cgroup-parent", &parent]);

    calls::until(&d, "away", "exited", 137);
    is_gone(&d, &ids[2], pids[2]);
    assert_eq!(calls::run_of(&d, "kept"), runs[0]);
    assert_eq!(d.docker(&["exec", "kept", "echo", "heard"]).text(), "heard");
    assert!(d.docker(&["top", "kept", "-o", "pid,args"]).text().ends_with(" sleep 1000"));
    let monitor = calls::monitor_of(&d, "orphan");
    assert!(process::signal(monitor, Signal::KILL));
    calls::until(&d, "orphan", "exited", 137);
    is_gone(&d, &ids[1], pids[1]);

    // The next run is where the daemon is told to make it, and found from the first place in turn.
    let _ = d.docker(&["restart", "-t", "0", "kept"]).ok();
    is_gone_from_first_place(&d, &ids[0]);
    let run = calls::run_of(&d, "kept");
    assert!(cgroups_of(run.0).contains(&format!("{parent}/{}", ids[0])), "{}", cgroups_of(run.0));
    d.kill9();
    d.again_with(&[]);
    assert_eq!(calls::run_of(&d, "kept"), run);
    let _ = d.docker(&["rm", "-f", "kept", "orphan", "away"]).ok();
    is_gone(&d, &ids[0], run.0);
    let left = std::fs::read_dir(&elsewhere).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| ids.iter().any(|id| name == id.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
    // The parent itself stays, as any other.
    testkit::census::cgroups(d.cgroup()).into_iter().for_each(|empty| std::fs::remove_dir(empty).unwrap());
    d.finish();
}

#[track_caller]
fn is_gone_from_first_place(d: &Daemon, id: &str) {
    assert!(!d.exec_root().join(id).exists());
    let first = format!("/{}/{id}", d.cgroup());
    let groups = testkit::census::cgroups(d.cgroup());
    assert!(!groups.iter().any(|group| group.display().to_string().ends_with(&first)), "{groups:?}");
}
