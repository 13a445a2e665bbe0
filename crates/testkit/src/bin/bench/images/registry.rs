//! Debian's `docker-registry` over the made images, in the network namespace of whoever pulls from it.

use std::fs;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{command, places};

/// Where it listens: loopback is taken for insecure by every engine.
pub const ADDRESS: &str = "127.0.0.1:5000";

/// A running registry. Killed when dropped.
pub struct Registry {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Serves `root` in the network namespace of a process.
    pub fn beside(pid: u32, root: &Path) -> Registry {
        let dir = tempfile::Builder::new().prefix("gt-registry").tempdir_in("/tmp").expect("a directory in /tmp");
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{ADDRESS}', secret: bench}}\n",
            root.display()
        );
        fs::write(&config, text).expect("a fresh directory can be filled");
        let child = Command::new(places::find("nsenter"))
            .args(["-t", &pid.to_string(), "-n", "--"])
            .arg(places::find("docker-registry"))
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter starts");
        let up = || within(pid, || TcpStream::connect(ADDRESS).is_ok());
        assert!(command::eventually(Duration::from_secs(20), up), "the registry does not answer");
        Registry { child, _dir: dir }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does something on a thread that is in the network namespace of a process.
fn within<T: Send + 'static>(pid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let entered = std::thread::spawn(move || {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).expect("the process lives");
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).expect("root may enter a namespace");
        work()
    });
    entered.join().expect("the thread ends")
}

/// The process behind a socket.
pub fn peer(socket: &Path) -> u32 {
    let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    let credentials = rustix::net::sockopt::socket_peercred(&stream).expect("unix sockets have credentials");
    credentials.pid.as_raw_nonzero().get().unsigned_abs()
}
