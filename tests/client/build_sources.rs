//! Sources of builds that lie on other hosts: files of servers and commits of repositories, as the classic API names them
//! (`ADD <url>`, `remote=`).

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use testkit::Daemon;
use testkit::command::{self, Output};
use testkit::fake_registry::{Answer, FakeRegistry, Reply, listen_inside};
use testkit::http::Response;

use crate::with_busybox;

/// A time, as servers write it and as seconds since 1970.
const TIME: (&str, &str) = ("Sun, 06 Nov 1994 08:49:37 GMT", "784111777");

/// Builds a Dockerfile that needs no files of the client.
fn build(d: &Daemon, dockerfile: &str, args: &[&str]) -> Output {
    let dir = d.path("plain");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    let words = [&["build"], args, &[dir.to_str().unwrap()]].concat();
    command::run(d.cli(&words).env("DOCKER_BUILDKIT", "0"), b"")
}

/// Builds a context that the daemon fetches.
fn build_remote(d: &Daemon, remote: &str, query: &str) -> Response {
    let remote: String = remote
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    d.http("POST", &format!("/v1.43/build?remote={remote}&{query}"), "")
}

/// A web server with a few pages; counts requests that were answered with content.
fn web(d: &Daemon) -> (FakeRegistry, Arc<AtomicUsize>) {
    let server = FakeRegistry::inside(d.namespaces(), "127.0.0.1:0");
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    server.rule(move |seen| {
        let page = |body: &[u8]| {
            let answer = Answer::new(200, body).with("ETag", "\"one\"").with("Last-Modified", TIME.0);
            Some(Reply::Send(answer))
        };
        match seen.path.as_str() {
            _ if seen.header("if-none-match") == "\"one\"" => Some(Reply::Send(Answer::new(304, ""))),
            "/a.txt" | "/dir/a.txt?x=1" => {
                count.fetch_add(1, Ordering::Relaxed);
                page(b"content")
            }
            "/Dockerfile" => page(b"FROM busybox\nRUN echo remote > /f\n"),
            "/moved" => Some(Reply::Send(Answer::new(302, "").with("Location", "/a.txt"))),
            "/file" => Some(Reply::Send(Answer::new(302, "").with("Location", "file:///etc/passwd"))),
            "/ring" => Some(Reply::Send(Answer::new(302, "").with("Location", "/ring"))),
            _ => Some(Reply::Send(Answer::new(404, "nothing"))),
        }
    });
    (server, sent)
}

#[test]
fn a_file_of_a_server_is_added_as_it_says_and_asked_for_again() {
    let d = with_busybox();
    let (server, sent) = web(&d);
    let url = format!("http://{}", server.address());
    let dockerfile = format!("FROM busybox\nADD {url}/a.txt /d/\nADD {url}/moved /e\nADD {url}/dir/a.txt?x=1 /f/\n");
    let _ = build(&d, &dockerfile, &["-t", "added"]).ok();
    for path in ["/d/a.txt", "/e", "/f/a.txt"] {
        assert_eq!(d.docker(&["run", "--rm", "added", "cat", path]).text(), "content", "{path}");
        let told = d.docker(&["run", "--rm", "added", "stat", "-c", "%a %u %g %Y", path]).text();
        assert_eq!(told, format!("600 0 0 {}", TIME.1), "{path}");
    }
    let before = sent.load(Ordering::Relaxed);
    let again = build(&d, &dockerfile, &[]).ok();
    assert_eq!(again.stdout.matches(" ---> Using cache").count(), 3, "{}", again.stdout);
    assert_eq!(sent.load(Ordering::Relaxed), before, "what the server still has is not sent again");
    d.finish();
}

#[test]
fn what_a_server_does_not_give_is_an_error() {
    let d = with_busybox();
    let (server, _) = web(&d);
    let url = format!("http://{}", server.address());
    for (instruction, text) in [
        (format!("ADD {url}/none /x"), "invalid response status 404"),
        (format!("ADD {url}/file /x"), "unsupported protocol scheme \"file\""),
        (format!("ADD {url}/ring /x"), "stopped after 10 redirects"),
        (format!("ADD {url}/ /x/"), "cannot determine filename from url"),
        (format!("COPY {url}/a.txt /x"), "source can't be a URL for COPY"),
        ("ADD http://127.0.0.1:1/a /x".to_owned(), "connection refused"),
    ] {
        let refused = build(&d, &format!("FROM busybox\n{instruction}\n"), &[]);
        assert!(refused.stderr.contains(text), "{instruction}: {}", refused.stderr);
    }
    d.finish();
}

#[test]
fn a_dockerfile_and_an_archive_of_a_server_are_contexts() {
    let d = with_busybox();
    let (server, _) = web(&d);
    let url = format!("http://{}", server.address());
    let built = build_remote(&d, &format!("{url}/Dockerfile"), "t=remote").expect(200).text();
    assert!(built.contains("Successfully tagged remote:latest"), "{built}");
    assert_eq!(d.docker(&["run", "--rm", "remote", "cat", "/f"]).text(), "remote");
    let dir = d.path("packed");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY x /x\n").unwrap();
    fs::write(dir.join("x"), "packed").unwrap();
    let packed = Command::new("tar").args(["-cz", "-C"]).arg(&dir).arg(".").output().unwrap().stdout;
    server.rule(move |seen| (seen.path == "/c.tgz").then(|| Reply::Send(Answer::new(200, packed.clone()))));
    let built = build_remote(&d, &format!("{url}/c.tgz"), "t=archive").expect(200).text();
    assert!(built.contains("Successfully tagged archive:latest"), "{built}");
    assert_eq!(d.docker(&["run", "--rm", "archive", "cat", "/x"]).text(), "packed");
    let refused = build_remote(&d, &format!("{url}/none"), "");
    assert!(refused.status >= 400 && refused.message().contains("invalid response status 404"));
    let refused = build_remote(&d, "/etc", "").expect(400);
    assert!(refused.message().contains("not supported"), "{}", refused.message());
    d.finish();
}

/// A server of repositories inside a daemon's namespaces: one `git daemon` a connection.
struct Git {
    dir: PathBuf,
    address: String,
    stopped: Arc<AtomicBool>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

impl Git {
    fn serve(d: &Daemon) -> Git {
        let dir = d.path("repositories");
        fs::create_dir_all(&dir).unwrap();
        let listener = listen_inside(d.namespaces(), "127.0.0.1:0");
        let address = listener.local_addr().unwrap().to_string();
        let stopped = Arc::new(AtomicBool::new(false));
        let (accepting, base, is_stopped) = (listener.try_clone().unwrap(), dir.clone(), stopped.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                if is_stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (input, output) = (OwnedFd::from(stream.try_clone().unwrap()), OwnedFd::from(stream));
                let words = ["daemon", "--inetd", "--export-all"];
                let base = format!("--base-path={}", base.display());
                let served = Command::new("git")
                    .args(words)
                    .args([&base, base.trim_start_matches("--base-path=")])
                    .env("GIT_CONFIG_COUNT", "1")
                    .env("GIT_CONFIG_KEY_0", "safe.directory")
                    .env("GIT_CONFIG_VALUE_0", "*")
                    .stdin(Stdio::from(input))
                    .stdout(Stdio::from(output))
                    .stderr(Stdio::null())
                    .spawn();
                std::thread::spawn(move || served.and_then(|mut served| served.wait()));
            }
        });
        Git { dir, address, stopped, listener, accepting: Some(accepting) }
    }

    fn url(&self, name: &str) -> String {
        format!("git://{}/{name}", self.address)
    }

    /// Runs `git` on a repository.
    fn run(&self, name: &str, words: &[&str]) -> String {
        let done = Command::new("git")
            .arg("-C")
            .arg(self.dir.join(name))
            .args(["-c", "user.name=n", "-c", "user.email=e@e", "-c", "protocol.file.allow=always"])
            .args(["-c", "init.defaultBranch=main", "-c", "safe.directory=*"])
            .args(words)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// A repository with these files in one commit.
    fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        fs::create_dir_all(self.dir.join(name)).unwrap();
        let _ = self.run(name, &["init", "--quiet"]);
        self.commit(name, files)
    }

    fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let path = self.dir.join(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let _ = self.run(name, &["add", "."]);
        let _ = self.run(name, &["commit", "--quiet", "-m", "m"]);
        self.run(name, &["rev-parse", "HEAD"])
    }
}

impl Drop for Git {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        drop(self.accepting.take().map(JoinHandle::join));
    }
}

const PRINTS: &str = "FROM busybox\nCOPY . /c\nRUN cd /c && find . -type f | sort | xargs cat > /all\n";

fn all_of(d: &Daemon, image: &str) -> String {
    d.docker(&["run", "--rm", image, "cat", "/all"]).text()
}

#[test]
fn a_repository_is_a_context_by_branch_tag_commit_and_directory() {
    let d = with_busybox();
    let git = Git::serve(&d);
    let first =
        git.repository("r", &[("Dockerfile", PRINTS), ("x", "one\n"), ("sub/Dockerfile", PRINTS), ("sub/y", "y\n")]);
    let _ = git.run("r", &["tag", "-a", "-m", "m", "v1"]);
    let _ = git.run("r", &["checkout", "--quiet", "-b", "other"]);
    let _ = git.commit("r", &[("x", "two\n")]);
    let _ = git.run("r", &["tag", "both"]);
    let _ = git.run("r", &["branch", "both", "main"]);
    let _ = git.run("r", &["checkout", "--quiet", "main"]);
    let url = git.url("r");
    for (at, (fragment, printed)) in [
        ("", "one"),
        ("#main", "one"),
        ("#other", "two"),
        ("#v1", "one"),
        ("#refs/tags/both", "two"),
        // A branch wins over a tag.
        ("#both", "one"),
        (&format!("#{first}"), "one"),
        ("#other:sub", "y"),
        ("#:sub/../sub", "y"),
    ]
    .into_iter()
    .enumerate()
    {
        let built = build_remote(&d, &format!("{url}{fragment}"), &format!("t=r{at}")).expect(200).text();
        assert!(built.contains("Successfully tagged"), "{fragment}: {built}");
        let all = all_of(&d, &format!("r{at}"));
        assert!(all.lines().any(|line| line == printed), "{fragment}: {all}");
        let listed = d.docker(&["run", "--rm", &format!("r{at}"), "find", "/c", "-name", ".git"]).text();
        assert_eq!(listed, "", "{fragment}");
    }
    d.finish();
}

#[test]
fn submodules_are_fetched_by_allowed_protocols_only() {
    let d = with_busybox();
    let git = Git::serve(&d);
    let _ = git.repository("inner", &[("i", "inner\n")]);
    let _ = git.repository("outer", &[("Dockerfile", PRINTS)]);
    let inner = git.dir.join("inner");
    let _ = git.run("outer", &["submodule", "--quiet", "add", "--", inner.to_str().unwrap(), "in"]);
    let _ = git.run("outer", &["config", "--file", ".gitmodules", "submodule.in.url", "../inner"]);
    let _ = git.commit("outer", &[]);
    let built = build_remote(&d, &git.url("outer"), "t=sub").expect(200).text();
    assert!(built.contains("Successfully tagged"), "{built}");
    assert!(all_of(&d, "sub").contains("inner"));
    for other in [inner.to_str().unwrap(), "file:///etc", "ext::sh -c touch% /tmp/it"] {
        let _ = git.run("outer", &["config", "--file", ".gitmodules", "submodule.in.url", other]);
        let _ = git.commit("outer", &[]);
        let refused = build_remote(&d, &git.url("outer"), "t=bad");
        assert!(refused.status >= 400, "{other}: {}", refused.text());
        assert!(refused.message().contains("git submodule"), "{other}: {}", refused.message());
    }
    d.finish();
}

/// Nothing that a repository or an address says is run, and nothing of the host is read.
#[test]
fn odd_repositories_and_references_are_refused() {
    let d = with_busybox();
    let git = Git::serve(&d);
    let _ = git.repository("odd", &[("Dockerfile", PRINTS), ("x", "x\n")]);
    std::os::unix::fs::symlink("/etc", git.dir.join("odd/link")).unwrap();
    let _ = git.commit("odd", &[(".gitattributes", "x filter=evil\n")]);
    let hook = git.dir.join("odd/.git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\ntouch /tmp/hooked\n").unwrap();
    let url = git.url("odd");
    let zeros = "0".repeat(40);
    for (remote, text) in [
        (format!("{url}#nothing"), "repository does not contain ref nothing"),
        (format!("{url}#--upload-pack=x"), "invalid git reference"),
        (format!("{url}#:link"), "subdir link"),
        (format!("{url}#:none"), "subdir none"),
        (format!("{url}#:x"), "subdir x"),
        (format!("{url}#{zeros}"), "git checkout"),
        (git.url("none"), "git ls-remote"),
        ("http://127.0.0.1:1/x.git".to_owned(), "repositories are not fetched by http"),
    ] {
        let refused = build_remote(&d, &remote, "");
        assert!(refused.status >= 400, "{remote}: {}", refused.text());
        assert!(refused.message().contains(text), "{remote}: {}", refused.message());
    }
    assert!(!Path::new("/tmp/hooked").exists());
    assert_eq!(fs::read_dir(d.data_root().join("build/git")).map_or(0, Iterator::count), 0);
    d.finish();
}

/// A commit that was checked out is taken from the cache, whatever it is called.
#[test]
fn a_commit_is_checked_out_once() {
    let d = with_busybox();
    let git = Git::serve(&d);
    let commit = git.repository("once", &[("Dockerfile", PRINTS)]);
    let url = git.url("once");
    let _ = build_remote(&d, &url, "t=once").expect(200).text();
    for remote in [url.clone(), format!("{url}#main"), format!("{url}#{commit}")] {
        let again = build_remote(&d, &remote, "").expect(200).text();
        assert_eq!(again.matches("Using cache").count(), 2, "{remote}: {again}");
    }
    let df = d.http("GET", "/v1.50/system/df?type=build-cache", "").expect(200).json();
    let checkouts = df["BuildCache"].as_array().unwrap().iter().filter(|row| row["Type"] == "source.git.checkout");
    assert_eq!(checkouts.count(), 1, "{df}");
    d.finish();
}
