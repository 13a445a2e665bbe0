//! Real Compose, the plugin (2.26) and the Python program (1.29): an application's life, its options, changes, ends.
//!
//! The applications lie in `compose/`. Both clients run where both know the words.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::{Daemon, Output, Running, command, places};

use crate::{eventually, with_busybox};

/// The newest and the oldest client that Debian has.
const CLIENTS: [&str; 2] = ["compose-2", "compose-1"];
const PLUGIN: &str = CLIENTS[0];

/// An application in a directory of its own, driven by one client.
struct Application<'d> {
    daemon: &'d Daemon,
    client: &'static str,
    dir: PathBuf,
    project: &'static str,
}

impl<'d> Application<'d> {
    /// Copies `compose/<project>.yaml`.
    fn new(daemon: &'d Daemon, client: &'static str, project: &'static str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("client/compose").join(format!("{project}.yaml"));
        let dir = daemon.path(&format!("{client}-{project}"));
        fs::create_dir(&dir).unwrap();
        fs::copy(file, dir.join("compose.yaml")).unwrap();
        Self { daemon, client, dir, project }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    /// Replaces words of the application's file.
    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir.join("compose.yaml")).unwrap();
        assert!(text.contains(from), "{from}");
        self.write("compose.yaml", &text.replace(from, to));
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.daemon.namespaces().command(places::compose(self.client));
        command.args(["-p", self.project, "--project-directory"]).arg(&self.dir).arg("-f");
        command.arg(self.dir.join("compose.yaml")).args(words);
        command.env("DOCKER_HOST", format!("unix://{}", self.daemon.socket().display()));
        command.env("DOCKER_CONFIG", self.daemon.path("cli")).env("HOME", self.daemon.path("cli"));
        // It takes the newest version that the daemon has, and misses a field of images that versions from 1.45 lack.
        command.env("COMPOSE_API_VERSION", "1.44");
        for other in ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_API_VERSION", "COMPOSE_FILE"] {
            command.env_remove(other);
        }
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Output {
        command::run(&mut self.command(words), b"")
    }

    fn spawn(&self, words: &[&str]) -> Running {
        Running::start(&mut self.command(words))
    }

    /// Name of a service's container: the clients put different signs between its parts.
    fn container(&self, service: &str, number: u32) -> String {
        let sign = if self.client == PLUGIN { '-' } else { '_' };
        format!("{}{sign}{service}{sign}{number}", self.project)
    }

    /// Standard output of a command in a service's container.
    #[track_caller]
    fn inside(&self, service: &str, script: &str) -> String {
        self.run(&["exec", "-T", service, "sh", "-c", script]).text()
    }
}

/// Names of what a `docker … ls` lists, sorted.
fn listed(d: &Daemon, words: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = d.docker(words).ok().stdout.lines().map(Into::into).collect();
    names.sort_unstable();
    names
}

fn containers(d: &Daemon) -> Vec<String> {
    listed(d, &["ps", "-a", "--format", "{{.Names}} {{.State}}"])
}

#[test]
fn an_application_lives_with_the_plugin() {
    lives(PLUGIN);
}

#[test]
fn an_application_lives_with_the_python_program() {
    lives(CLIENTS[1]);
}

fn lives(client: &'static str) {
    let d = with_busybox();
    let shop = Application::new(&d, client, "shop");
    let _ = shop.run(&["up", "-d"]).ok();
    let running = |service: &str, number| format!("{} running", shop.container(service, number));
    let migrated = format!("{} exited", shop.container("migrate", 1));
    let mut whole = ["cache", "database", "proxy", "web"].map(|service| running(service, 1)).to_vec();
    whole.push(migrated);
    whole.sort_unstable();
    assert_eq!(containers(&d), whole);
    let listing = shop.run(&["ps", "-a"]).ok().stdout;
    assert!(whole.iter().all(|line| listing.contains(line.split_whitespace().next().unwrap())), "{listing}");
    assert!(listing.contains("0.0.0.0:8080->80/tcp"), "{listing}");
    assert_eq!(shop.run(&["port", "proxy", "80"]).text(), "0.0.0.0:8080");
    assert!(eventually(|| {
        let said = shop.run(&["logs", "--no-color"]).ok().stdout;
        ["proxy starts", "web starts", "database starts", "migrated"].iter().all(|line| said.contains(line))
    }));
    assert_eq!(shop.inside("database", "cat /data/schema; nc 127.0.0.1 5432"), "schema 1\nschema 1");
    assert_eq!(shop.inside("cache", "touch /x 2>/dev/null || touch /tmp/x && ls /tmp"), "x");
    assert_eq!(shop.run(&["exec", "-T", "web", "sh", "-c", "exit 7"]).code, 7);
    finds_by_name(&d, &shop);
    scales(&d, &shop);
    let _ = shop.run(&["down", "-v"]).ok();
    assert_eq!(containers(&d), [""; 0]);
    assert_eq!(listed(&d, &["network", "ls", "--format", "{{.Name}}"]), ["bridge", "host", "none"]);
    assert_eq!(listed(&d, &["volume", "ls", "-q"]), [""; 0]);
    d.finish();
}

/// Services, their aliases and containers, each on the networks that both are on; the host by the published port.
fn finds_by_name(d: &Daemon, shop: &Application<'_>) {
    for name in ["database", &shop.container("database", 1), "172.30.9.9"] {
        assert_eq!(shop.inside("web", &format!("nc {name} 5432")), "schema 1", "{name}");
    }
    let page = format!("page of {}", &d.inspect(&shop.container("web", 1), "{{.Id}}")[..12]);
    for (from, name) in [("proxy", "www"), ("proxy", "web"), ("cache", "web")] {
        assert_eq!(shop.inside(from, &format!("wget -qO- http://{name}:8000/")), page, "{from}: {name}");
    }
    for (from, name) in [("proxy", "database"), ("cache", "www"), ("cache", "proxy")] {
        assert_ne!(shop.run(&["exec", "-T", from, "nslookup", name]).code, 0, "{from}: {name}");
    }
    let through = || d.exec_inside(&["curl", "-s", "--max-time", "10", "http://127.0.0.1:8080/"]);
    assert!(eventually(|| through().stdout.trim() == page), "{:?}", through());
}

fn scales(d: &Daemon, shop: &Application<'_>) {
    let web = || listed(d, &["ps", "-q", "--no-trunc", "-f", "label=com.docker.compose.service=web"]);
    let first = web();
    let _ = shop.run(&["up", "-d", "--scale", "web=3"]).ok();
    let three = web();
    assert!(three.len() == 3 && first.iter().all(|id| three.contains(id)), "{first:?} {three:?}");
    let found = shop.inside("proxy", "nslookup web | grep -c '^Address.* 172'");
    assert_eq!(found, "3", "a service's name leads to all of its containers");
    let _ = shop.run(&["up", "-d", "--scale", "web=1"]).ok();
    assert_eq!(web(), first);
}

#[test]
fn options_of_services_reach_their_containers() {
    let d = with_busybox();
    // The host is a router already: otherwise the first network of IPv6 makes it one, with a rule that stays.
    let _ = d.exec_inside(&["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"]).ok();
    let options = Application::new(&d, PLUGIN, "options");
    options.write(".env", "TAG=latest\n");
    options.write("common.env", "FROM_FILE=yes\n");
    options.write("conf.txt", "a config\n");
    options.write("password.txt", "a secret\n");
    let _ = d.docker(&["network", "create", "--subnet", "172.31.7.0/24", "outside"]).ok();
    let _ = d.docker(&["volume", "create", "external"]).ok();
    let _ = options.run(&["up", "-d"]).ok();
    let names = ["main", "plain", "scaled", "shared", "side"].map(|service| options.container(service, 1));
    assert!(names.iter().all(|name| d.inspect(name, "{{.State.Running}}") == "true"));
    assert_eq!(containers(&d).len(), 6, "both of `scaled`, no `debugger`");
    inside_the_main_service(&options);
    beside_the_main_service(&d, &options);
    let _ = options.run(&["--profile", "debug", "up", "-d", "debugger"]).ok();
    assert_eq!(containers(&d).len(), 7);
    let _ = options.run(&["--profile", "debug", "down", "-v"]).ok();
    assert_eq!(listed(&d, &["network", "ls", "--format", "{{.Name}}"]), ["bridge", "host", "none", "outside"]);
    assert_eq!(listed(&d, &["volume", "ls", "-q"]), ["external"]);
    let _ = d.docker(&["network", "rm", "outside"]).ok();
    let _ = d.docker(&["volume", "rm", "external"]).ok();
    d.finish();
}

fn inside_the_main_service(options: &Application<'_>) {
    let main = |script: &str| options.inside("main", script);
    assert_eq!(main("hostname; cat /proc/sys/kernel/domainname"), "mainhost\nexample.org");
    assert_eq!(main("echo $HELLO $FROM_FILE; pwd; id -u; id -g; id -G"), "world yes\n/tmp\n1000\n1001\n1001 77");
    assert_eq!(main("cat /etc/conf.txt /etc/other.txt /run/secrets/password"), "a config\na config\na secret");
    assert_eq!(main("ulimit -Sn; ulimit -Hn; grep -c 'Max processes *100 *100' /proc/1/limits"), "100\n200\n1");
    assert_eq!(main("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/1/oom_score_adj"), "77\n100");
    assert_eq!(main("df /dev/shm /scratch | awk 'NR > 1 { print $2 }'"), "32768\n1024");
    assert_eq!(main("grep -c NoNewPrivs:.1 /proc/1/status; ls /dev/nothing"), "1\n/dev/nothing");
    assert_eq!(main("cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline | grep -c sleep"), "docker-init\n1");
    assert_eq!(main("ls -d /named /external /anonymous; touch /etc/conf.txt 2>/dev/null || echo read-only"), {
        "/anonymous\n/external\n/named\nread-only"
    });
    let addresses = main("ip -o -4 addr | awk '{ print $4 }' | sort");
    assert_eq!(addresses, "127.0.0.1/8\n172.29.5.1/16\n172.31.7.9/24");
    assert_eq!(main("cat /sys/class/net/*/mtu | sort -n | head -1"), "1400");
    assert!(main("cat /etc/hosts").contains("10.9.8.7\tprinter.example.org"));
}

fn beside_the_main_service(d: &Daemon, options: &Application<'_>) {
    let side = |script: &str| options.inside("side", script);
    assert_eq!(side("hostname; ps | grep -c '[s]leep 1000'"), "mainhost\n3", "with the init of the other");
    let shared = |name: &str| d.inspect(&options.container(name, 1), "{{.HostConfig.IpcMode}}");
    assert!(shared("side").starts_with("container:"));
    let main = options.container("main", 1);
    assert_eq!(d.inspect(&main, "{{index .Config.Labels \"role\"}} {{.Config.StopSignal}}"), "main SIGUSR1");
    assert_eq!(
        d.inspect(&main, "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-file\"}}"),
        "json-file 2"
    );
    let scaled = options.container("scaled", 2);
    assert_eq!(
        d.inspect(
            &scaled,
            "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
        ),
        "33554432 200000000 3"
    );
    let ports = d.docker(&["port", &main]).ok().stdout;
    assert_eq!(ports.lines().filter(|line| line.contains("/udp -> 127.0.0.1:900")).count(), 3, "{ports}");
    assert!(ports.contains("80/tcp -> 0.0.0.0:8081"), "{ports}");
    assert_eq!(options.run(&["exec", "-T", "--index", "2", "scaled", "cat", "/etc/conf.txt"]).text(), "a config");
}

#[test]
fn what_has_changed_is_made_anew_and_nothing_else() {
    let d = with_busybox();
    for client in CLIENTS {
        let shop = Application::new(&d, client, "shop");
        let ids = || {
            let format = "{{.Label \"com.docker.compose.service\"}} {{.ID}}";
            listed(&d, &["ps", "--no-trunc", "--format", format])
        };
        let _ = shop.run(&["up", "-d"]).ok();
        let first = ids();
        let _ = shop.run(&["up", "-d"]).ok();
        assert_eq!(ids(), first, "{client}: nothing has changed");
        shop.edit("DATABASE: database", "DATABASE: other");
        let _ = shop.run(&["up", "-d", "--no-deps", "web"]).ok();
        let second = ids();
        let changed: Vec<_> = second.iter().filter(|line| !first.contains(line)).collect();
        assert!(changed.len() == 1 && changed[0].starts_with("web "), "{client}: {first:?} {second:?}");
        assert_eq!(shop.inside("web", "echo $DATABASE"), "other");
        let _ = shop.run(&["up", "-d", "--force-recreate", "--no-deps", "cache"]).ok();
        assert_eq!(ids().iter().filter(|line| !second.contains(line)).count(), 1, "{client}");
        // A service that is no longer in the file is an orphan.
        shop.edit("  cache:\n", "  store:\n");
        let _ = shop.run(&["up", "-d", "--remove-orphans"]).ok();
        let services: Vec<_> = ids().iter().map(|line| line.split_once(' ').unwrap().0.to_string()).collect();
        assert_eq!(services, ["database", "proxy", "store", "web"], "{client}");
        let _ = shop.run(&["down", "-v", "--remove-orphans"]).ok();
        assert_eq!(containers(&d), [""; 0]);
    }
    d.finish();
}

#[test]
fn services_are_stopped_started_and_looked_at() {
    let d = with_busybox();
    for client in CLIENTS {
        let shop = Application::new(&d, client, "shop");
        let _ = shop.run(&["up", "-d"]).ok();
        let (cache, web) = (shop.container("cache", 1), shop.container("web", 1));
        let state = |name: &str| d.inspect(name, "{{.State.Status}}");
        let _ = shop.run(&["pause", "cache"]).ok();
        assert_eq!(state(&cache), "paused");
        let _ = shop.run(&["unpause", "cache"]).ok();
        let started = d.inspect(&cache, "{{.State.StartedAt}}");
        let _ = shop.run(&["restart", "-t", "0", "cache"]).ok();
        assert_ne!(d.inspect(&cache, "{{.State.StartedAt}}"), started);
        let _ = shop.run(&["kill", "-s", "KILL", "cache"]).ok();
        d.until(&cache, "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
        let _ = shop.run(&["start", "cache"]).ok();
        assert_eq!(state(&cache), "running");
        let _ = shop.run(&["stop", "-t", "0", "web"]).ok();
        assert_eq!(state(&web), "exited");
        let _ = shop.run(&["up", "-d"]).ok();
        assert_eq!(state(&web), "running");
        assert!(shop.run(&["top", "web"]).ok().stdout.contains("httpd -f"), "{client}");
        assert!(shop.run(&["images"]).ok().stdout.contains("busybox"), "{client}");
        let once = shop.run(&["run", "--rm", "-T", "migrate", "sh", "-c", "cat /data/schema; exit 3"]);
        assert!(once.code == 3 && once.stdout.contains("schema 1"), "{client}: {once:?}");
        let _ = shop.run(&["rm", "-fs", "web"]).ok();
        assert_eq!(listed(&d, &["ps", "-aq", "-f", "label=com.docker.compose.service=web"]), [""; 0]);
        let _ = shop.run(&["down", "-v"]).ok();
    }
    d.finish();
}

#[test]
fn files_are_copied_projects_listed_events_told() {
    let d = with_busybox();
    let shop = Application::new(&d, PLUGIN, "shop");
    let _ = shop.run(&["up", "-d"]).ok();
    let mut events = shop.spawn(&["events", "--json"]);
    shop.write("page.html", "copied\n");
    let page = shop.dir.join("page.html").display().to_string();
    let _ = shop.run(&["cp", &page, "web:/srv/page.html"]).ok();
    assert_eq!(shop.inside("web", "cat /srv/page.html"), "copied");
    let back = shop.dir.join("back.html").display().to_string();
    let _ = shop.run(&["cp", "web:/srv/page.html", &back]).ok();
    assert_eq!(fs::read_to_string(&back).unwrap(), "copied\n");
    let projects = shop.run(&["ls"]).ok().stdout;
    assert!(projects.contains("shop") && projects.contains("running(4)"), "{projects}");
    // The client asks for events a moment after its start.
    assert!(eventually(|| {
        let _ = shop.run(&["restart", "-t", "0", "cache"]).ok();
        let told = events.stdout();
        ["kill", "die", "stop", "start", "restart"]
            .iter()
            .all(|action| told.contains(&format!("\"action\":\"{action}\"")))
    }));
    events.kill();
    let _ = shop.run(&["down", "-v"]).ok();
    d.finish();
}

#[test]
fn the_end_of_one_service_ends_the_others() {
    let d = with_busybox();
    for client in CLIENTS {
        let ends = Application::new(&d, client, "ends");
        let ended = ends.run(&["up", "--exit-code-from", "test"]);
        assert_eq!(ended.code, 5, "{client}: {ended:?}");
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains("test starts") && said.contains("test fails"), "{client}: {said}");
        let states = [("test", "exited 5"), ("ticking", "exited 137")];
        for (service, state) in states {
            assert_eq!(
                d.inspect(&ends.container(service, 1), "{{.State.Status}} {{.State.ExitCode}}"),
                state,
                "{client}"
            );
        }
        let _ = ends.run(&["down"]).ok();
    }
    d.finish();
}

#[test]
fn services_that_fail_are_told() {
    let d = with_busybox();
    let ends = Application::new(&d, PLUGIN, "ends");
    ends.run(&["up", "-d", "behind"]).fails(1, "service \"failing\" didn't complete successfully: exit 1");
    ends.run(&["up", "-d", "absent"]).fails(1, "exec: \"/no/such\": stat /no/such: no such file or directory");
    let _ = ends.run(&["up", "-d", "again"]).ok();
    d.until(&ends.container("again", 1), "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "exited 3 2");
    assert_eq!(ends.run(&["logs", "again"]).ok().stdout.matches("try").count(), 3);
    let _ = ends.run(&["--profile", "*", "down", "--remove-orphans"]).ok();
    d.finish();
}

#[test]
fn logs_are_followed_until_the_service_ends() {
    let d = with_busybox();
    let ends = Application::new(&d, PLUGIN, "ends");
    let _ = ends.run(&["up", "-d", "ticking"]).ok();
    let mut follower = ends.spawn(&["logs", "-f", "--no-log-prefix", "ticking"]);
    let mut attached = ends.spawn(&["attach", "--no-stdin", "ticking"]);
    follower.expect("tick\n\u{1b}[2Ktick\n");
    attached.expect("tick\n");
    let _ = ends.run(&["kill", "ticking"]).ok();
    assert_eq!(follower.end().code, 0);
    let _ = attached.end();
    let _ = ends.run(&["down"]).ok();
    d.finish();
}

/// `up --wait`, and services that wait for others to be healthy.
#[test]
fn services_wait_until_others_are_healthy() {
    let d = with_busybox();
    for client in CLIENTS {
        let healthy = Application::new(&d, client, "healthy");
        let up: &[&str] = if client == PLUGIN { &["up", "-d", "--wait"] } else { &["up", "-d"] };
        let _ = healthy.run(up).ok();
        let database = d.inspect(&healthy.container("database", 1), "{{.State.Health.Status}}");
        assert_eq!(database, "healthy", "{client}");
        assert_eq!(
            healthy.inside("web", "cat /data/ready"),
            "ready",
            "{client}: begun before the database was healthy"
        );
        let _ = healthy.run(&["down", "-v"]).ok();
    }
    let healthy = Application::new(&d, PLUGIN, "ill");
    healthy.run(&["up", "-d", "web"]).fails(1, "is unhealthy");
    let _ = healthy.run(&["down", "-v"]).ok();
    d.finish();
}

/// `build`, by BuildKit's API and by the classic one.
#[test]
fn images_of_an_application_are_built() {
    let d = with_busybox();
    for client in CLIENTS {
        let built = Application::new(&d, client, "built");
        built.write(
            "Own",
            "FROM busybox AS last\nARG WORD=none\nCOPY f /f\nRUN echo $WORD >> /f\nCMD [\"cat\", \"/f\"]\nFROM busybox\nRUN false\n",
        );
        built.write("f", "file\n");
        let first = built.run(&["build"]).ok();
        assert_eq!(d.docker(&["run", "--rm", "built:1"]).text(), "file\ngiven", "{client}: {first:?}");
        assert_eq!(d.inspect("built:1", "{{index .Config.Labels \"made\"}}"), "compose", "{client}");
        let again = built.run(&["build"]).ok();
        let text = format!("{}{}", again.stdout, again.stderr);
        assert!(text.contains("CACHED") || text.contains("Using cache"), "{client}: {text}");
        built.write("Own", "FROM busybox AS last\nRUN exit 7\n");
        let failed = built.run(&["build"]);
        assert_ne!(failed.code, 0, "{client}: {failed:?}");
        let text = format!("{}{}", failed.stdout, failed.stderr);
        assert!(text.contains("exit code: 7") || text.contains("non-zero code: 7"), "{client}: {text}");
        let _ = d.docker(&["rmi", "-f", "built:1"]).ok();
    }
    d.finish();
}
