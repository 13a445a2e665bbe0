//! `docker ps` and `docker top`: filters, formats, sizes, statuses.

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

#[test]
fn top() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "web", "busybox", "sh", "-c", "sleep 777 & sleep 888"]).ok();
    let seen = eventually(|| {
        let text = d.docker(&["top", "web"]).ok().stdout;
        text.starts_with("UID") && text.contains("sleep 777") && text.contains("sleep 888")
    });
    assert!(seen, "{}", d.docker(&["top", "web"]).ok().stdout);
    let text = d.docker(&["top", "web", "-o", "pid,args"]).ok().stdout;
    assert!(text.starts_with("PID"), "{text}");
    d.finish();
}
