//! `docker ps` and `docker top`: filters, formats, sizes, statuses.

use testkit::{Daemon, Options};

use crate::{eventually, with_busybox};

#[test]
fn filters() {
    let d = with_busybox();
    let _ =
        d.docker(&["run", "-d", "--name", "run1", "--label", "a=1", "--label", "b", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["create", "--name", "made1", "--label", "a=2", "busybox", "true"]).ok();
    let _ = d.docker(&["run", "--name", "done1", "busybox", "sh", "-c", "exit 3"]);
    let names = |filters: &[&str]| {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| args.extend(["--filter", filter]));
        let mut names: Vec<String> = d.docker(&args).text().lines().map(String::from).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "done1 made1 run1");
    assert_eq!(names(&["status=running"]), "run1");
    assert_eq!(names(&["status=created", "status=exited"]), "done1 made1");
    assert_eq!(names(&["exited=3"]), "done1");
    assert_eq!(names(&["label=a"]), "made1 run1");
    assert_eq!(names(&["label=a=2"]), "made1");
    assert_eq!(names(&["label=a", "label=b"]), "run1");
    assert_eq!(names(&["name=un"]), "run1");
    assert_eq!(names(&["name=^/made1$"]), "made1");
    assert_eq!(names(&["ancestor=busybox"]), "done1 made1 run1");
    assert_eq!(names(&["ancestor=nosuch"]), "");
    assert_eq!(names(&["network=bridge", "status=running"]), "run1");
    assert_eq!(names(&["since=run1"]), "done1 made1");
    assert_eq!(names(&["before=made1"]), "run1");
    let id = d.inspect("run1", "{{.Id}}");
    assert_eq!(names(&[&format!("id={}", &id[..12])]), "run1");
    assert_eq!(d.docker(&["ps", "-q", "--no-trunc"]).text(), id);
    assert_eq!(d.docker(&["ps", "-l", "--format", "{{.Names}}"]).text(), "done1");
    assert_eq!(d.docker(&["ps", "-n", "2", "-q"]).text().lines().count(), 2);
    d.docker(&["ps", "--filter", "status=zz"]).fails(1, "invalid filter 'status=zz'");
    d.docker(&["ps", "--filter", "zz=1"]).fails(1, "invalid filter 'zz'");
    d.finish();
}

#[test]
fn both_forms_of_filters_and_bad_ones() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "--label", "a=b", "busybox", "true"]).ok();
    let get = |filters: &str| d.http("GET", &format!("/containers/json?all=1&filters={filters}"), "");
    assert_eq!(get("%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D").expect(200).json().as_array().unwrap().len(), 1);
    assert_eq!(get("%7B%22label%22%3A%5B%22a%3Db%22%5D%7D").expect(200).json().as_array().unwrap().len(), 1);
    assert_eq!(get("zz").expect(400).message(), "invalid filter");
    assert_eq!(d.http("GET", "/containers/json?limit=x", "").message(), "strconv.Atoi: parsing \"x\": invalid syntax");
    d.finish();
}

#[test]
fn statuses_read_like_sentences() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "--name", "gone", "busybox", "sh", "-c", "exit 2"]);
    let _ = d.docker(&["create", "--name", "new", "busybox", "true"]).ok();
    let table = d.docker(&["ps", "-a", "--format", "{{.Names}}|{{.Status}}|{{.State}}|{{.Command}}"]).text();
    let line = |name: &str| table.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_string();
    assert!(line("up|").starts_with("up|Up ") && line("up|").contains("|running|\"sleep 1000\""), "{table}");
    assert!(line("gone").starts_with("gone|Exited (2) ") && line("gone").contains(" ago|exited|"), "{table}");
    assert!(line("new").starts_with("new|Created|created|"), "{table}");
    d.finish();
}

#[test]
fn sizes() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "s1", "busybox", "dd", "if=/dev/zero", "of=/file", "bs=1M", "count=3"]).ok();
    let size = d.docker(&["ps", "-as", "--format", "{{.Size}}"]).text();
    assert!(size.starts_with("3.15MB (virtual "), "{size}");
    let inspect = d.docker(&["inspect", "-s", "-f", "{{.SizeRw}}", "s1"]).text().parse::<u64>().unwrap();
    assert!((3 << 20..4 << 20).contains(&inspect), "{inspect}");
    d.finish();
}

/// `docker top` with these arguments, its titles and lines with single spaces.
fn top(d: &Daemon, arguments: &[&str]) -> Vec<String> {
    let words: Vec<&str> = [&["top", "web"][..], arguments].concat();
    let text = d.docker(&words).ok().stdout;
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn with_two_sleeps(options: Options) -> Daemon {
    let d = options.start();
    d.busybox();
    let _ = d.docker(&["run", "-d", "--name", "web", "busybox", "sh", "-c", "sleep 777 & sleep 888; true"]).ok();
    let both = |lines: &[String]| ["sleep 777", "sleep 888"].iter().all(|s| lines.iter().any(|l| l.ends_with(s)));
    assert!(eventually(|| both(&top(&d, &[]))), "{:?}", top(&d, &[]));
    d
}

/// Every option of the host's `ps` means what it means there.
#[test]
fn top_is_the_hosts_ps() {
    let d = with_two_sleeps(Options::new());
    let _ = d.docker(&["run", "-d", "--name", "other", "busybox", "sleep", "999"]).ok();
    let pid = d.inspect("web", "{{.State.Pid}}");
    let titles = |arguments: &[&str], wanted: &str| {
        let lines = top(&d, arguments);
        assert_eq!(lines[0], wanted, "{arguments:?}");
        assert!(lines.len() >= 4 && !lines.iter().any(|line| line.contains("sleep 999")), "{arguments:?}: {lines:?}");
        lines
    };
    let _ = titles(&[], "UID PID PPID C STIME TTY TIME CMD");
    let _ = titles(&["aux"], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
    let _ = titles(&["axjf"], "PPID PID PGID SID TTY TPGID STAT UID TIME COMMAND");
    let _ = titles(&["-elf"], "F S UID PID PPID C PRI NI ADDR SZ WCHAN STIME TTY TIME CMD");
    let _ = titles(&["-T"], "PID SPID TTY TIME CMD");
    let _ = titles(&["-o", "pid=PIDS", "-o", "pid"], "PIDS PID");
    let names = |sort: &str| -> Vec<String> {
        let lines = titles(&["axo", "pid,comm", sort], "PID COMMAND");
        lines[1..].iter().map(|line| line.split(' ').next_back().unwrap().to_owned()).collect()
    };
    assert_eq!((names("--sort=comm"), names("--sort=-comm")), (vec_of("sh sleep sleep"), vec_of("sleep sleep sh")));
    let _ = titles(&["aux", "--sort=comm"], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
    let users = titles(&["-eopid,user"], "PID USER");
    assert!(users.contains(&format!("{pid} root")), "{users:?}");
    let ages = titles(&["-o", "pid,etime"], "PID ELAPSED");
    let age = ages.iter().find_map(|line| line.strip_prefix(&format!("{pid} "))).unwrap_or_default();
    assert!(age.len() >= 5 && age.bytes().all(|b| b.is_ascii_digit() || b"-:".contains(&b)), "{ages:?}");
    let listed = |arguments: &str| d.http("GET", &format!("/containers/web/top?ps_args={arguments}"), "");
    assert_eq!(listed("-o+comm").expect(500).message(), "Couldn't find PID field in ps output");
    assert_eq!(listed("-o+ppid=PID").expect(500).message(), "specifying \"ppid=PID\" is not allowed");
    // Before anything is said about the container.
    let nobody = d.http("GET", "/containers/nobody/top?ps_args=-o+ppid=PID", "");
    assert_eq!(nobody.expect(500).message(), "specifying \"ppid=PID\" is not allowed");
    let refusal = listed("--nonsense").expect(500).message();
    assert!(refusal.starts_with("ps: error: "), "{refusal}");
    d.finish();
}

fn vec_of(words: &str) -> Vec<String> {
    words.split(' ').map(String::from).collect()
}

/// The daemon's environment and descriptors are its own; a `ps` that never ends holds up nobody.
#[test]
fn a_ps_of_any_kind() {
    let dir = tempfile::tempdir().unwrap();
    let ps = dir.path().join("ps");
    let write = |text: &str| {
        let fresh = dir.path().join("fresh");
        std::fs::write(&fresh, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &ps).unwrap();
    };
    write("exec /bin/ps \"$@\"");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let d = with_two_sleeps(Options::new().env("PATH", &path).env("PS_FORMAT", "comm").env("COLUMNS", "20"));
    let pid = d.inspect("web", "{{.State.Pid}}");
    assert_eq!(top(&d, &[])[0], "UID PID PPID C STIME TTY TIME CMD");
    write(&format!("echo PID WHAT; echo {pid} $(ls /proc/self/fd) $(env | grep -c ^PS_FORMAT)"));
    assert_eq!(top(&d, &[])[1], format!("{pid} 0 1 2 3 0"));
    // What a process calls itself is a stranger's: much of it is cut.
    write(&format!("echo PID WHAT; echo {pid} $(head -c 9000000 /dev/zero | tr '\\0' x)"));
    let answer = d.http("GET", "/containers/web/top", "").expect(200);
    assert!((30_000..40_000).contains(&answer.body.len()), "{}", answer.body.len());
    write(&format!("echo PID WHAT; while :; do echo {pid} x; done"));
    let message = d.http("GET", "/containers/web/top", "").expect(500).message();
    assert!(message.starts_with("ps: the list is longer than") || message.starts_with("ps: killed after"), "{message}");
    write("sleep 1000; echo");
    let message = d.http("GET", "/containers/web/top", "").expect(500).message();
    assert!(message.starts_with("ps: killed after "), "{message}");
    write("echo 'error: the reason' >&2; exit 1");
    assert_eq!(d.http("GET", "/containers/web/top", "").expect(500).message(), "ps: error: the reason");
    d.finish();
}

/// Where there is no `ps`, the usual forms are known.
#[test]
fn top_without_a_ps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let d = with_two_sleeps(Options::new().env("PATH", &path));
    assert_eq!(top(&d, &["-eopid,user"])[0], "PID USER");
    assert_eq!(top(&d, &["aux"])[0], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
    d.docker(&["top", "web", "--sort=comm"]).fails(1, "ps: unsupported argument: --sort=comm");
    d.finish();
}
