//! `gantry-demo`: a daemon from nothing, an image from nothing, and a container's output on the screen.

#![forbid(unsafe_code)]

use testkit::{Daemon, images};

fn main() {
    let d = Daemon::start();
    let root = d.path("rootfs.tar");
    std::fs::write(&root, images::busybox_tar()).expect("the daemon's directory can be written");
    println!("a daemon of its own listens on unix://{}", d.socket().display());
    let root = root.display().to_string();
    for words in [
        &["import", &root, "busybox:latest"][..],
        &["images"],
        &[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "8081:80",
            "busybox",
            "sh",
            "-c",
            "echo 'a page from a container' > /index.html; httpd -f -p 80 -h /",
        ],
        &["ps"],
        &["exec", "web", "id"],
        &["run", "--rm", "busybox", "wget", "-q", "-O-", "http://172.17.0.1:8081/"],
        &["rm", "-f", "web"],
        &["run", "--rm", "busybox", "echo", "hello from a container"],
    ] {
        println!("\n$ docker {}", words.join(" ").replace(&root, "rootfs.tar"));
        let output = d.docker(words);
        print!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, 0, "the demonstration failed");
    }
    d.finish();
}
