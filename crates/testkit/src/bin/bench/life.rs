//! `gantry-bench life`: containers over their lives. Execs and probes of health checks against the bare kernel's, pauses against
//! commits, stops of many at once, containers that end again and again, who looks on (stats, metrics), and a thousand idle ones.

use std::io::Read;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testkit::http::Connection;
use testkit::{Daemon, Options, command, places, process};

use crate::engine::{Client, Engine, Network, micros};
use crate::figures::{Figures, Samples};
use crate::memory::mib;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Execs, and pauses.
    rounds: usize,
    /// Containers that are stopped at once, that are checked every second, that crash, that are looked at.
    many: usize,
    /// Idle containers.
    crowd: usize,
    /// How long the use of the processor is measured, in seconds.
    seconds: u64,
}

/// Full size.
pub const FULL: Scale = Scale { rounds: 300, many: 100, crowd: 1000, seconds: 20 };
/// A part of it.
pub const QUICK: Scale = Scale { rounds: 60, many: 100, crowd: 100, seconds: 5 };

/// Where the metrics are, in the network namespace of the daemon.
const METRICS: &str = "127.0.0.1:9323";
/// Ticks of a second in `/proc/<pid>/stat`: `USER_HZ`, which never is another.
const TICKS: f64 = 100.0;
/// Rounds of what is measured against the kernel: each in turn with it.
const BATCHES: usize = 6;
/// When a storm has begun long enough ago that the containers are no longer at their first restarts.
const STORM: Duration = Duration::from_secs(30);

/// Everything.
pub fn run(scale: Scale, figures: &mut Figures) {
    let mut daemon = Options::new().args(&["--metrics-addr", METRICS]).start();
    daemon.probe();
    daemon.busybox();
    let engine = Engine::open(&daemon.socket());
    execs(scale, &daemon, &engine, figures);
    pauses(scale, &engine, figures);
    stops(scale, &engine, figures);
    checks(scale, &daemon, &engine, figures);
    watched(scale, &daemon, &engine, figures);
    storm(scale, &daemon, &engine, figures);
    crowd(scale, &mut daemon, &engine, figures);
    daemon.finish();
}

/// Processor time of a process and of those children of it that were waited for, in seconds (proc_pid_stat(5)).
fn used(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // utime, stime, cutime, cstime.
    fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

fn monitors(daemon: &Daemon) -> Vec<u32> {
    process::all().into_iter().filter(|pid| process::parent(*pid) == Some(daemon.pid())).collect()
}

/// The same of the daemon and its monitors together.
fn used_by_all(daemon: &Daemon) -> f64 {
    used(daemon.pid()) + monitors(daemon).into_iter().map(used).sum::<f64>()
}

/// What `work` costs for as long as it takes: shares of one processor.
fn share(uses: impl Fn() -> f64, work: impl FnOnce()) -> f64 {
    let (before, begun) = (uses(), Instant::now());
    work();
    (uses() - before) / begun.elapsed().as_secs_f64()
}

fn pid_of(client: &mut Client, id: &str) -> u64 {
    let state = client.get(&format!("/v1.41/containers/{id}/json"));
    let state: serde_json::Value = serde_json::from_slice(&state).expect("an answer of the API");
    state["State"]["Pid"].as_u64().expect("it runs")
}

/// The bare kernel's execs in a container: microseconds of each, and the processor time of all in seconds.
fn floor(daemon: &Daemon, pid: u64, rounds: usize) -> (Vec<f64>, f64) {
    let mut program = daemon.namespaces().command(places::program("gantry-floor"));
    program.args(["exec", &rounds.to_string(), &pid.to_string(), "/probe"]);
    let output = command::run(&mut program, b"").ok().stdout;
    let mut lines: Vec<f64> = output.lines().filter_map(|line| line.parse().ok()).collect();
    let seconds = lines.pop().unwrap_or_default() / 1e6;
    (lines, seconds)
}

fn execs(scale: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    let id = client.create(&["sleep", "100000"], Network::None, "");
    client.start(&id);
    let pid = pid_of(&mut client, &id);
    let (mut alone, mut own) = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        alone.extend(floor(daemon, pid, scale.rounds / BATCHES).0);
        engine.execs(scale.rounds / BATCHES, &mut own);
    }
    client.remove(&id);
    let (alone, own) = (Samples::new(alone), Samples::new(own));
    figures.time("exec, the kernel alone", &alone);
    figures.time("exec over the API", &own);
    figures.ratio("exec / the kernel alone", own.percentile(50.0) / alone.percentile(50.0), Some(2.5));
}

/// Pauses against changes that are commits and nothing else, in turn.
fn pauses(scale: Scale, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    let id = client.create(&["sleep", "100000"], Network::None, "");
    client.start(&id);
    let (mut pauses, mut commits) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        let policy = if round % 2 == 0 { "always" } else { "no" };
        let begin = Instant::now();
        client.post(
            &format!("/v1.41/containers/{id}/update"),
            &format!(r#"{{"RestartPolicy":{{"Name":"{policy}"}}}}"#),
            200,
        );
        commits.push(micros(begin));
        let begin = Instant::now();
        client.post(&format!("/v1.41/containers/{id}/pause"), "", 204);
        pauses.push(micros(begin));
        client.post(&format!("/v1.41/containers/{id}/unpause"), "", 204);
    }
    client.remove(&id);
    let (pauses, commits) = (Samples::new(pauses), Samples::new(commits));
    figures.time("pause", &pauses);
    figures.time("one commit (update of a policy)", &commits);
    let more = (pauses.percentile(50.0) - commits.percentile(50.0)) / 1000.0;
    figures.at_most("pause beyond one commit", more, "ms", Some(2.0));
}

/// Creates and starts many; `image` and `words` say what, `config` and `host` are further fields with a leading comma.
fn start_many(engine: &Engine, count: usize, image: &str, (config, host): (&str, &str)) -> Vec<String> {
    let mut client = engine.connect();
    let body = format!(r#"{{"Image":"{image}"{config},"HostConfig":{{"NetworkMode":"none"{host}}}}}"#);
    let one = |_| {
        let answer = client.post("/v1.41/containers/create", &body, 201);
        let id = answer["Id"].as_str().expect("an id").to_owned();
        client.start(&id);
        id
    };
    (0..count).map(one).collect()
}

fn remove_all(engine: &Engine, ids: &[String]) {
    let mut client = engine.connect();
    ids.iter().for_each(|id| client.remove(id));
}

/// Stops of many at once, by as many clients; they end on SIGTERM.
fn stops(scale: Scale, engine: &Engine, figures: &mut Figures) {
    let script = r#","Cmd":["sh","-c","trap 'exit 0' TERM; while :; do sleep 100000 & wait; done"]"#;
    let ids = start_many(engine, scale.many, "busybox", (script, ""));
    // Until the last has set its trap.
    thread::sleep(Duration::from_secs(2));
    let mut clients: Vec<Client> = ids.iter().map(|_| engine.connect()).collect();
    let begin = Instant::now();
    thread::scope(|scope| {
        for (client, id) in clients.iter_mut().zip(&ids) {
            scope.spawn(move || client.post(&format!("/v1.41/containers/{id}/stop"), "", 204));
        }
    });
    let name = format!("stop of {} that end on SIGTERM", ids.len());
    figures.at_most(&name, begin.elapsed().as_secs_f64(), "s", Some(2.0));
    remove_all(engine, &ids);
}

/// Probes every second, against as many execs of the bare kernel.
fn checks(scale: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let config = r#","Cmd":["sleep","100000"],"Healthcheck":{"Test":["CMD","/probe","true"],"Interval":1000000000}"#;
    let ids = start_many(engine, scale.many, "probe", (config, ""));
    let pid = pid_of(&mut engine.connect(), &ids[0]);
    let rounds = scale.rounds.max(50);
    let cost = floor(daemon, pid, rounds).1 / rounds as f64;
    let seconds = Duration::from_secs(scale.seconds);
    let before = probes_made(daemon);
    let used = share(|| used_by_all(daemon), || thread::sleep(seconds));
    let rate = (probes_made(daemon) - before) / scale.seconds as f64;
    figures.at_least("probes of health checks a second", rate, None);
    figures.at_most("the kernel alone, per exec", cost * 1000.0, "ms", None);
    figures.at_most("probes, all of a processor", used * 100.0, "%", None);
    // As if there were a hundred a second.
    let beyond = (used / rate - cost) * 100.0;
    figures.at_most("100 probes a second beyond the kernel", beyond * 100.0, "%", Some(10.0));
    remove_all(engine, &ids);
}

/// All probes so far, as the metrics say.
fn probes_made(daemon: &Daemon) -> f64 {
    let text = scrape(daemon);
    let value = text.lines().find_map(|line| line.strip_prefix("engine_daemon_health_checks_total "));
    value.and_then(|value| value.parse().ok()).expect("the metrics count probes")
}

fn scrape(daemon: &Daemon) -> String {
    daemon.exec_inside(&["busybox", "wget", "-qO-", &format!("http://{METRICS}/metrics")]).ok().stdout
}

/// A stream of figures of each of many containers.
fn watched(scale: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let ids = start_many(engine, scale.many, "probe", (r#","Cmd":["sleep","100000"]"#, ""));
    let streams: Vec<Connection> = ids
        .iter()
        .map(|id| {
            let mut stream = Connection::open(engine.socket()).expect("the engine accepts");
            let request = format!("GET /v1.41/containers/{id}/stats HTTP/1.1\r\nHost: d\r\n\r\n");
            stream.send(request.as_bytes()).and_then(|()| stream.head()).expect("a stream begins");
            stream
        })
        .collect();
    let used = share(|| used(daemon.pid()), || thread::sleep(Duration::from_secs(scale.seconds)));
    figures.at_most(&format!("stats streams of {}, of a processor", ids.len()), used * 100.0, "%", Some(3.0));
    drop(streams);
    remove_all(engine, &ids);
}

/// Containers that end at once and are started again by their policy.
fn storm(scale: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let (config, host) = (r#","Cmd":["exit","1"]"#, r#","RestartPolicy":{"Name":"always"}"#);
    let ids = start_many(engine, scale.many, "probe", (config, host));
    let first = share(|| used(daemon.pid()), || thread::sleep(STORM));
    figures.at_most("crash loops, at first, of a processor", first * 100.0, "%", None);
    let later = share(|| used(daemon.pid()), || thread::sleep(STORM.max(Duration::from_secs(scale.seconds))));
    figures.at_most(&format!("crash loops of {}, of a processor", ids.len()), later * 100.0, "%", Some(10.0));
    remove_all(engine, &ids);
}

/// Many idle containers: memory, the list, metrics, and a daemon that starts.
fn crowd(scale: Scale, daemon: &mut Daemon, engine: &Engine, figures: &mut Figures) {
    let ids = start_many(engine, scale.crowd, "probe", (r#","Cmd":["sleep","1000000"]"#, ""));
    let name = format!("{} idle containers", ids.len());
    figures.at_most(&format!("{name}: daemon, RSS"), mib(daemon.pid(), "status", "VmRSS:"), "MB", Some(45.0));
    let monitors = monitors(daemon);
    let own: Vec<u32> = process::all()
        .into_iter()
        .filter(|pid| process::parent(*pid).is_some_and(|parent| monitors.contains(&parent)))
        .collect();
    let pss = |pid: &u32| mib(*pid, "smaps_rollup", "Pss:");
    let all = monitors.iter().chain(&own).chain([&daemon.pid()]).map(pss).sum::<f64>();
    figures.at_most(&format!("{name}: PSS of each"), all / ids.len() as f64, "MB", Some(0.3));
    let mut client = engine.connect();
    let mut lists = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        client.get("/v1.41/containers/json?all=1");
        lists.push(micros(begin));
    }
    figures.time_within(&format!("{name}: ps -a"), &Samples::new(lists), 50.0, 25.0);
    metrics(scale, daemon, &name, figures);
    let begun = Instant::now();
    daemon.kill9();
    daemon.again();
    figures.at_most(&format!("{name}: restart to first answer"), millis(begun), "ms", Some(300.0));
    remove_all(engine, &ids);
}

fn millis(begun: Instant) -> f64 {
    micros(begun) / 1000.0
}

fn metrics(scale: Scale, daemon: &Daemon, name: &str, figures: &mut Figures) {
    // The first one begins the rounds, and waits for one.
    scrape(daemon);
    let mut idle = vec![];
    let mut scrapes = vec![];
    for _ in 0..10 {
        idle.push(of_program(daemon, &["busybox", "true"]));
        scrapes.push(of_program(daemon, &["busybox", "wget", "-qO/dev/null", &format!("http://{METRICS}/metrics")]));
    }
    let p50 = |samples: Vec<f64>| Samples::new(samples).percentile(50.0) / 1000.0;
    figures.at_most(&format!("{name}: metrics"), p50(scrapes) - p50(idle), "ms", Some(50.0));
    let used = share(|| used(daemon.pid()), || thread::sleep(Duration::from_secs(scale.seconds)));
    figures.at_most(&format!("{name}: rounds, of a processor"), used * 100.0, "%", Some(10.0));
}

/// Microseconds that a program takes in the daemon's namespaces.
fn of_program(daemon: &Daemon, words: &[&str]) -> f64 {
    let mut command = daemon.namespaces().command(places::find(words[0]));
    command.args(&words[1..]).stdout(Stdio::piped()).stdin(Stdio::null());
    let begin = Instant::now();
    let mut child: Child = command.spawn().expect("nsenter starts");
    let mut text = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut text).expect("a program's output");
    assert!(child.wait().expect("a child can be waited for").success(), "{words:?}");
    micros(begin)
}
