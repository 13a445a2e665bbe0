//! Who is started behind whom when the daemon starts.

use serde_json::Value;
use testkit::{Daemon, Options, places};

use crate::with_busybox;

const FOREVER: [&str; 3] = ["busybox", "sleep", "100000"];

#[track_caller]
fn run(d: &Daemon, name: &str, options: &[&str]) {
    let words = ["run", "-d", "--restart", "always", "--stop-timeout", "0", "--name", name];
    let _ = d.docker(&[&words[..], options, &FOREVER].concat()).ok();
}

fn compose<'a>(service: &'a str, depends_on: &'a str) -> Vec<String> {
    let mut labels = vec!["--label".to_owned(), "com.docker.compose.project=p".to_owned()];
    labels.extend(["--label".to_owned(), format!("com.docker.compose.service={service}")]);
    if !depends_on.is_empty() {
        labels.extend(["--label".to_owned(), format!("com.docker.compose.depends_on={depends_on}")]);
    }
    labels
}

#[track_caller]
fn order(d: &Daemon, switches: &[&str]) -> String {
    let root = d.exec_root().display().to_string();
    let mut command = d.namespaces().command(places::gantryd());
    command.arg("order").args(switches).args(["--exec-root", &root]);
    testkit::command::run(&mut command, b"").ok().stdout
}

/// The machine is booted anew: nothing runs, and everything that is due comes back, each behind those that it needs (B-rs-4).
#[test]
fn containers_come_back_behind_those_that_they_need() {
    let mut d = with_busybox();
    run(&d, "db", &["-v", "/data"]);
    run(&d, "net", &["--network", "container:db"]);
    run(&d, "pid", &["--pid", "container:net"]);
    run(&d, "vol", &["--volumes-from", "db"]);
    run(&d, "link", &["--link", "vol:v"]);
    let text = order(&d, &[]);
    assert!(text.contains("    behind db: started (network)\n"), "{text}");
    assert!(text.contains("step 1\n  db (restart: always)\nstep 2\n"), "{text}");
    let shown: Value = serde_json::from_str(&order(&d, &["--json"])).unwrap();
    let steps: Vec<(&str, u64)> = shown["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["step"].as_u64().unwrap()))
        .collect();
    assert_eq!(steps, [("db", 1), ("net", 2), ("vol", 2), ("link", 3), ("pid", 3)]);
    assert_eq!(shown["cycles"], Value::Array(vec![]));
    assert_eq!(d.stop(), 0);
    d.again();
    for name in ["db", "net", "pid", "vol", "link"] {
        d.until(name, "{{.State.Running}} {{.State.Restarting}}", "true false");
    }
    let started = |name: &str| d.inspect(name, "{{.State.StartedAt}}");
    for (earlier, later) in [("db", "net"), ("net", "pid"), ("db", "vol"), ("vol", "link")] {
        assert!(started(earlier) < started(later), "{earlier} {later}");
    }
    assert!(!d.log().contains("started all the same"), "{}", d.log());
    d.finish();
}

/// Compose's conditions, by its labels: a job that is done is not done again, a service waits until another is healthy.
#[test]
fn composes_conditions_are_obeyed() {
    let mut d = with_busybox();
    let add = |name: &str, labels: &[String], options: &[&str], script: &str, policy: &str| {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let words = ["run", "-d", "--restart", policy, "--stop-timeout", "0", "--name", name];
        let words = [&words[..], &labels[..], options].concat();
        let _ = d.docker(&[&words[..], &["busybox", "sh", "-c", script]].concat()).ok();
    };
    let health = ["--health-cmd", "test -e /dev/shm/up", "--health-interval", "100ms", "--health-retries", "1000"];
    add("db", &compose("db", ""), &health, "sleep 1; date +%s > /dev/shm/up; sleep 100000", "always");
    add("job", &compose("job", ""), &[], "true", "no");
    add("bad", &compose("bad", ""), &[], "exit 3", "no");
    let needs = "db:service_healthy:false,job:service_completed_successfully:true";
    let wait = ["--label", "gantry.start-wait=10m"];
    add("web", &compose("web", needs), &wait, "date +%s > /dev/shm/began; sleep 100000", "always");
    add("lost", &compose("lost", "bad:service_completed_successfully:false"), &wait, "sleep 100000", "always");
    d.until("job", "{{.State.Status}}", "exited");
    d.until("bad", "{{.State.Status}}", "exited");
    let text = order(&d, &[]);
    for line in ["    behind db: healthy (compose)", "    behind job: completed successfully (compose)"] {
        assert!(text.lines().any(|told| told == line), "{text}");
    }
    let jobs_end = d.inspect("job", "{{.State.FinishedAt}}");
    assert_eq!(d.stop(), 0);
    d.again();
    // The API serves at once, while `web` waits.
    d.until("db", "{{.State.Running}} {{.State.Restarting}}", "true false");
    d.until("web", "{{.State.Running}} {{.State.Restarting}}", "true false");
    let second = |name: &str, file: &str| d.docker(&["exec", name, "cat", file]).text().parse::<u64>().unwrap();
    assert!(second("db", "/dev/shm/up") <= second("web", "/dev/shm/began"), "before the database was up");
    assert_eq!(d.inspect("db", "{{.State.Health.Status}}"), "healthy");
    assert_eq!(d.inspect("job", "{{.State.FinishedAt}}"), jobs_end, "done again");
    d.until("lost", "{{.State.Running}} {{.State.Restarting}}", "true false");
    let log = d.log();
    let told = log.lines().filter(|line| line.contains("started all the same")).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].contains("exit code 3") && told[0].contains("bad"), "{told:?}");
    d.finish();
}

/// What cannot be waited for is started after the time that its label says; what leads in a circle is named (B-rs-4).
#[test]
fn waits_have_an_end_and_circles_are_named() {
    let mut d = Options::new().start();
    d.busybox();
    let all = [("a", "b:service_healthy:false"), ("b", "c:service_started:false"), ("c", "a:service_started:false")];
    for (name, needs) in all {
        let labels = compose(name, needs);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        run(&d, name, &labels);
    }
    let labels = compose("ill", "");
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    run(&d, "ill", &[&labels[..], &["--health-cmd", "exit 1", "--health-interval", "1h"]].concat());
    let labels = compose("late", "ill:service_healthy:false");
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    run(&d, "late", &[&labels[..], &["--label", "gantry.start-wait=300ms"]].concat());
    let text = order(&d, &[]);
    let circle = text.lines().last().unwrap_or_default();
    assert!(circle.starts_with("ignored, since it is a circle: ") && circle.matches(" -> ").count() == 3, "{text}");
    assert_eq!(d.stop(), 0);
    d.again();
    for name in ["a", "b", "c", "ill", "late"] {
        d.until(name, "{{.State.Running}} {{.State.Restarting}}", "true false");
    }
    let log = d.log();
    assert!(log.lines().any(|line| line.contains("need each other") && line.contains(" -> ")), "{log}");
    let told: Vec<_> = log.lines().filter(|line| line.contains("started all the same")).collect();
    assert!(told.len() == 1 && told[0].contains("it took too long"), "{told:?}");
    d.docker(&["create", "--label", "gantry.start-wait=1", "busybox", "true"])
        .fails(1, "invalid label gantry.start-wait");
    d.finish();
}

/// The configuration says how long containers wait whose label does not.
#[test]
fn the_configuration_says_how_long_containers_wait() {
    let mut d = Options::new().config(r#"{"start-wait": "300ms"}"#).start();
    d.busybox();
    let add = |name: &str, needs: &str, options: &[&str]| {
        let labels = compose(name, needs);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        run(&d, name, &[&labels[..], options].concat());
    };
    add("ill", "", &["--health-cmd", "exit 1", "--health-interval", "1h"]);
    add("late", "ill:service_healthy:false", &[]);
    add("patient", "ill:service_healthy:false", &["--label", "gantry.start-wait=1h"]);
    assert_eq!(d.stop(), 0);
    d.again();
    d.until("late", "{{.State.Running}} {{.State.Restarting}}", "true false");
    assert_eq!(d.inspect("patient", "{{.State.Restarting}}"), "true");
    let refused = Options::new().config(r#"{"start-wait": "soon"}"#).refused();
    assert!(refused.stderr.contains("invalid start-wait: \"soon\""), "{refused:?}");
    d.finish();
}
