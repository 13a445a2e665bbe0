//! The endpoint for Prometheus.

use std::collections::BTreeMap;

use testkit::{Daemon, Options};

use crate::eventually;

const ADDRESS: &str = "127.0.0.1:9323";

/// All values of one answer, by name and labels.
#[track_caller]
fn scrape(d: &Daemon) -> BTreeMap<String, f64> {
    let text = d.exec_inside(&["busybox", "wget", "-qO-", &format!("http://{ADDRESS}/metrics")]).ok().stdout;
    let values = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    });
    values.collect()
}

fn with_metrics() -> Daemon {
    let d = Options::new().args(&["--metrics-addr", ADDRESS]).start();
    d.busybox();
    d
}

/// The value of a container's metric.
fn of<'v>(values: &'v BTreeMap<String, f64>, metric: &str, name: &str) -> Option<&'v f64> {
    let label = format!("name=\"{name}\"");
    values
        .iter()
        .find(|(key, _)| key.starts_with(&format!("{metric}{{")) && key.contains(&label))
        .map(|(_, value)| value)
}

#[test]
fn the_references_metrics_have_their_names() {
    let d = with_metrics();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "busybox", "true"]).ok();
    let values = scrape(&d);
    let value = |key: &str| *values.get(key).unwrap_or_else(|| panic!("{key}: {values:#?}"));
    assert_eq!(value("engine_daemon_container_states_containers{state=\"running\"}"), 1.0);
    assert_eq!(value("engine_daemon_container_states_containers{state=\"stopped\"}"), 1.0);
    assert_eq!(value("engine_daemon_container_states_containers{state=\"paused\"}"), 0.0);
    assert_eq!(value("engine_daemon_container_actions_seconds_count{action=\"create\"}"), 2.0);
    assert_eq!(value("engine_daemon_container_actions_seconds_bucket{action=\"start\",le=\"+Inf\"}"), 2.0);
    assert_eq!(value("engine_daemon_container_actions_seconds_count{action=\"delete\"}"), 0.0);
    assert!(value("engine_daemon_events_total") > 3.0);
    assert!(value("engine_daemon_engine_cpus_cpus") >= 1.0 && value("engine_daemon_engine_memory_bytes") > 1e6);
    assert!(values.keys().any(|key| key.starts_with("engine_daemon_engine_info{version=")), "{values:#?}");
    // Nothing else is served there.
    let other = d.exec_inside(&["busybox", "wget", "-qO-", &format!("http://{ADDRESS}/containers/json")]);
    assert!(other.stderr.contains("404"), "{other:?}");
    d.finish();
}

#[test]
fn containers_are_measured() {
    let d = with_metrics();
    let busy = "while true; do :; done";
    let _ = d.docker(&["run", "-d", "--name", "busy", "--memory", "64m", "busybox", "sh", "-c", busy]).ok();
    let _ = d.docker(&["run", "--name", "ended", "busybox", "sh", "-c", "exit 7"]);
    let cpu = |values: &BTreeMap<String, f64>| of(values, "gantry_container_cpu_seconds_total", "busy").copied();
    let first = cpu(&scrape(&d)).unwrap();
    let mut values = BTreeMap::new();
    assert!(eventually(|| {
        values = scrape(&d);
        cpu(&values).unwrap() > first
    }));
    assert!(of(&values, "gantry_container_memory_bytes", "busy").unwrap() > &0.0);
    assert_eq!(of(&values, "gantry_container_memory_limit_bytes", "busy"), Some(&67_108_864.0));
    assert_eq!(of(&values, "gantry_container_pids", "busy"), Some(&1.0));
    assert_eq!(of(&values, "gantry_container_running", "busy"), Some(&1.0));
    assert_eq!(of(&values, "gantry_container_restarts", "busy"), Some(&0.0));
    assert_eq!(of(&values, "gantry_container_exit_code", "busy"), None);
    assert_eq!(of(&values, "gantry_container_exit_code", "ended"), Some(&7.0));
    assert_eq!(of(&values, "gantry_container_pids", "ended"), None);
    let traffic =
        |values: &BTreeMap<String, f64>| *of(values, "gantry_container_network_transmit_bytes_total", "busy").unwrap();
    let before = traffic(&values);
    let _ = d.docker(&["exec", "busy", "ping", "-c1", "172.17.0.1"]);
    assert!(eventually(|| traffic(&scrape(&d)) > before));
    // A removed one is gone from the next answer.
    let _ = d.docker(&["rm", "-f", "busy"]).ok();
    assert_eq!(of(&scrape(&d), "gantry_container_running", "busy"), None);
    d.finish();
}

#[test]
fn an_address_that_is_taken_is_refused() {
    let refused = Options::new().args(&["--metrics-addr", "256.0.0.1:1"]).refused();
    assert!(refused.stderr.contains("failed to start metrics server"), "{refused:?}");
}

/// The dashboard, with its variables set to everything.
fn dashboard_queries() -> Vec<String> {
    let text = include_str!("../../contrib/grafana/gantry.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries = targets.map(|target| target["expr"].as_str().expect("an expression"));
    queries.map(|query| query.replace("$instance", ".*").replace("$container", ".*")).collect()
}

/// Percent-encodes all but letters and digits.
fn encoded(text: &str) -> String {
    let byte = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}

/// Prometheus takes the text, and answers every query of the dashboard with something.
#[test]
fn prometheus_answers_every_query_of_the_dashboard() {
    let d = with_metrics();
    let words = ["run", "-d", "--name", "busy", "--memory", "64m", "--health-cmd", "true", "--health-interval", "1s"];
    let _ = d.docker(&[&words[..], &["busybox", "sh", "-c", "while true; do :; done"]].concat()).ok();
    let _ = d.docker(&["run", "--name", "failed", "busybox", "sh", "-c", "exit 7"]);
    let _ = d.docker(&["run", "--name", "again", "--restart", "on-failure:1", "busybox", "sh", "-c", "exit 3"]);
    let text = d.exec_inside(&["busybox", "wget", "-qO-", &format!("http://{ADDRESS}/metrics")]).ok().stdout;
    let mut lint = std::process::Command::new(testkit::places::find("promtool"));
    let lint = testkit::command::run(lint.args(["check", "metrics"]), text.as_bytes());
    // The reference's own names are not as its linter likes them.
    let faults: Vec<_> =
        lint.stderr.lines().filter(|line| line.contains("gantry_") || line.contains("error")).collect();
    assert_eq!(faults, [""; 0], "{lint:?}");
    let (config, data) = (d.path("prometheus.yml"), d.path("prometheus"));
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: gantry\n  static_configs: [{{targets: ['{ADDRESS}']}}]\n"
    );
    std::fs::write(&config, scrape).unwrap();
    let mut prometheus = d.namespaces().command(testkit::places::find("prometheus"));
    prometheus
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg("--web.listen-address=127.0.0.1:9090");
    let prometheus = testkit::command::Running::start(&mut prometheus);
    let mut last = String::new();
    for query in dashboard_queries() {
        let url = format!("http://127.0.0.1:9090/api/v1/query?query={}", encoded(&query));
        let answered = eventually(|| {
            last = d.exec_inside(&["busybox", "wget", "-qO-", &url]).stdout;
            let answer: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
            answer["status"] == "success" && answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty())
        });
        assert!(answered, "{query}: {last}; {}", prometheus.stderr());
    }
    drop(prometheus);
    d.finish();
}

/// Probes are counted for the engine, and what they say for each container.
#[test]
fn health_checks_are_measured() {
    let d = with_metrics();
    let every = ["--health-interval", "50ms", "--health-retries", "1000"];
    for (name, check) in [("well", "true"), ("ill", "exit 1")] {
        let words = ["run", "-d", "--name", name, "--health-cmd", check];
        let _ = d.docker(&[&words[..], &every, &["busybox", "sleep", "1000"]].concat()).ok();
    }
    let _ = d.docker(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"]).ok();
    d.until("well", "{{.State.Health.Status}}", "healthy");
    let mut values = BTreeMap::new();
    assert!(eventually(|| {
        values = scrape(&d);
        of(&values, "gantry_container_health_failing_streak", "ill").is_some_and(|streak| *streak >= 2.0)
    }));
    assert_eq!(of(&values, "gantry_container_healthy", "well"), Some(&1.0));
    assert_eq!(of(&values, "gantry_container_healthy", "ill"), Some(&0.0));
    assert_eq!(of(&values, "gantry_container_healthy", "plain"), None);
    let value = |key: &str| values[key];
    let (all, failed) = (value("engine_daemon_health_checks_total"), value("engine_daemon_health_checks_failed_total"));
    assert!(failed >= 2.0 && all > failed, "{all} {failed}");
    assert!(value("engine_daemon_health_check_start_duration_seconds_count") > 0.0);
    assert!(value("engine_daemon_health_check_start_duration_seconds_sum") > 0.0);
    let _ = d.docker(&["stop", "-t", "0", "well"]).ok();
    assert_eq!(of(&scrape(&d), "gantry_container_healthy", "well"), None);
    d.finish();
}

/// What a container gives to its log is counted by its monitor: also while no daemon is there.
#[test]
fn logs_are_measured() {
    let mut d = with_metrics();
    let script = "echo hello; until [ -e /dev/shm/go ]; do sleep 0.05; done; echo more; sleep 1000";
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sh", "-c", script]).ok();
    let _ = d.docker(&["run", "-d", "--name", "silent", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "none", "--log-driver", "none", "busybox", "sh", "-c", script]).ok();
    let bytes = |d: &Daemon, name: &str| of(&scrape(d), "gantry_container_log_bytes_total", name).copied();
    assert!(eventually(|| bytes(&d, "c") == Some(6.0)));
    assert_eq!((bytes(&d, "silent"), bytes(&d, "none")), (Some(0.0), Some(0.0)));
    let pid = d.inspect("c", "{{.State.Pid}}");
    d.kill9();
    std::fs::write(format!("/proc/{pid}/root/dev/shm/go"), "").unwrap();
    d.again();
    assert!(eventually(|| bytes(&d, "c") == Some(11.0)));
    assert_eq!(of(&scrape(&d), "gantry_container_log_dropped_lines_total", "c"), Some(&0.0));
    d.finish();
}

/// A log that the disk has no room for.
#[test]
fn lines_that_the_log_has_dropped_are_counted() {
    let d = Options::new().args(&["--metrics-addr", ADDRESS]).disk("64m").start();
    d.busybox();
    let script = "dd if=/dev/zero bs=1000000 count=90 2>/dev/null | tr '\\0' x; sleep 1000";
    let words = ["run", "-d", "--name", "c", "--log-opt", "max-size=1g", "--log-driver", "json-file"];
    let _ = d.docker(&[&words[..], &["busybox", "sh", "-c", script]].concat()).ok();
    let mut values = BTreeMap::new();
    assert!(eventually(|| {
        values = scrape(&d);
        of(&values, "gantry_container_log_bytes_total", "c") == Some(&90_000_000.0)
    }));
    assert!(of(&values, "gantry_container_log_dropped_lines_total", "c").unwrap() > &0.0, "{values:#?}");
    let _ = d.docker(&["rm", "-f", "c"]).ok();
    d.finish();
}
