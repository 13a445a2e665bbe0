//! A daemon that dies at any moment while volumes are mounted and unmounted: the next one lets go of what nobody uses.

use std::time::Duration;

use testkit::{Daemon, command};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn volumes_are_let_go_whenever_a_daemon_dies() {
    let mut d = Daemon::start();
    d.busybox();
    let _ = d.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]).ok();
    let stays =
        ["run", "-d", "--name", "stays", "-v", "memory:/m", "busybox", "sh", "-c", "echo kept > /m/f; sleep 1000"];
    let _ = d.docker(&stays).ok();
    for round in 0..testkit::soak::rounds(8, 100) {
        let mut clients: Vec<_> = (0..3)
            .map(|_| d.spawn(&["run", "--rm", "-v", "memory:/m", "-v", "memory:/other:ro", "busybox", "cat", "/m/f"]))
            .collect();
        // Somewhere between the first request and the end of the last run.
        std::thread::sleep(Duration::from_millis(u64::try_from(round * 37 % 600).unwrap()));
        d.kill9();
        for client in &mut clients {
            client.kill();
        }
        d.again();
        let seen = d.docker(&["run", "--rm", "-v", "memory:/m", "busybox", "cat", "/m/f"]);
        assert_eq!(seen.text(), "kept", "round {round}");
    }
    d.remove_containers();
    let keepers = || d.namespaces().processes().iter().filter(|p| p.command.starts_with("gantry-volumes")).count();
    assert!(command::eventually(PATIENCE, || keepers() == 0), "the mount stays without a user");
    let _ = d.docker(&["volume", "rm", "memory"]).ok();
    d.finish();
}
