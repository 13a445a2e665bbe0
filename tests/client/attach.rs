//! Terminals and attaching: resize, detach, come back, half-close, websocket, the hijack's two heads.

use std::time::Duration;

use testkit::http::{frames, stream_text};

use crate::{eventually, with_busybox};

const DETACH: &str = "\u{10}\u{11}";

#[test]
fn run_in_a_terminal_detach_and_come_back() {
    let d = with_busybox();
    let mut terminal = d.pty(&["run", "-it", "--name", "t1", "busybox", "sh"]);
    terminal.expect("#");
    terminal.type_keys("X=kept; tty\r");
    terminal.expect("/dev/pts/0");
    terminal.type_keys(DETACH);
    assert_eq!(terminal.end(), 0);
    assert_eq!(d.inspect("t1", "{{.State.Status}}"), "running");
    let mut again = d.pty(&["attach", "t1"]);
    again.type_keys("echo $X-$X\r");
    again.expect("kept-kept");
    again.type_keys("exit 6\r");
    assert_eq!(again.end(), 6);
    d.finish();
}

#[test]
fn the_window_reaches_the_container() {
    let d = with_busybox();
    let mut terminal = d.pty(&["run", "-it", "--rm", "busybox", "sh"]);
    terminal.expect("#");
    let seen = eventually(|| {
        // The client begins to listen for changes a moment after the container's first output.
        terminal.resize(33, 110);
        terminal.resize(33, 111);
        terminal.type_keys("stty size\r");
        std::thread::sleep(Duration::from_millis(200));
        terminal.screen().contains("33 111")
    });
    assert!(seen, "{}", terminal.screen());
    terminal.type_keys("exit\r");
    assert_eq!(terminal.end(), 0);
    d.finish();
}

#[test]
fn the_interrupt_key_interrupts() {
    let d = with_busybox();
    let mut terminal = d.pty(&[
        "run",
        "-it",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 130' INT; echo ready; while true; do sleep 1; done",
    ]);
    terminal.expect("ready");
    terminal.type_keys("\u{3}");
    assert_eq!(terminal.end(), 130);
    d.finish();
}

#[test]
fn own_detach_keys() {
    let d = with_busybox();
    let mut terminal = d.pty(&["run", "-it", "--detach-keys", "ctrl-a,x", "--name", "t1", "busybox", "sh"]);
    terminal.expect("#");
    terminal.type_keys("\u{1}x");
    assert_eq!(terminal.end(), 0);
    assert_eq!(d.inspect("t1", "{{.State.Running}}"), "true");
    d.finish();
}

#[test]
fn attach_sees_what_is_written_and_the_exit_code() {
    let d = with_busybox();
    let script = "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo line $i; sleep 0.1; done; exit 4";
    let _ = d.docker(&["run", "-d", "--name", "w1", "busybox", "sh", "-c", script]).ok();
    let mut attached = d.spawn(&["attach", "--no-stdin", "w1"]);
    attached.expect("line");
    let _ = d.docker(&["exec", "w1", "touch", "/tmp/stop"]).ok();
    assert_eq!(attached.end().code, 4);
    d.finish();
}

#[test]
fn two_clients_see_the_same() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-di", "--name", "c1", "busybox", "cat"]).ok();
    let mut one = d.spawn(&["attach", "--sig-proxy=false", "c1"]);
    let two = d.spawn(&["attach", "--no-stdin", "--sig-proxy=false", "c1"]);
    // Attached when the echo comes back.
    let seen = eventually(|| {
        one.write(b"hello\n");
        std::thread::sleep(Duration::from_millis(100));
        one.stdout().contains("hello") && two.stdout().contains("hello")
    });
    assert!(seen, "{:?} {:?}", one.stdout(), two.stdout());
    drop((one, two));
    d.finish();
}

#[test]
fn half_close_is_the_end_of_input_and_all_output_still_comes() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","cat; echo done >&2"],"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"OpenStdin":true,"StdinOnce":true}"#;
    let id = d.http("POST", "/containers/create", body).expect(201).json()["Id"].as_str().unwrap().to_string();
    let mut stream = d.connection();
    let head = stream.upgrade(&format!("/v1.45/containers/{id}/attach?stdin=1&stdout=1&stderr=1&stream=1"), "");
    assert_eq!(head.status, 101);
    assert_eq!(head.header("Upgrade"), Some("tcp"));
    assert_eq!(head.header("Content-Type"), Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(d.http("POST", &format!("/containers/{id}/start"), "").status, 204);
    stream.send(b"abc\n").unwrap();
    stream.half_close().unwrap();
    let bytes = stream.rest().unwrap();
    assert_eq!((stream_text(&bytes, 1).as_str(), stream_text(&bytes, 2).as_str()), ("abc\n", "done\n"));
    d.finish();
}

/// Who is attached and sees the end of the stream then asks for the exit code.
#[test]
fn the_exit_code_is_there_when_the_stream_ends() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","exit 7"],"AttachStdout":true}"#;
    for _ in 0..20 {
        let id = d.http("POST", "/containers/create", body).expect(201).json()["Id"].as_str().unwrap().to_string();
        let mut stream = d.connection();
        let head = stream.upgrade(&format!("/v1.45/containers/{id}/attach?stdout=1&stream=1"), "");
        assert_eq!(head.status, 101);
        assert_eq!(d.http("POST", &format!("/containers/{id}/start"), "").status, 204);
        assert_eq!(stream.rest().unwrap(), b"");
        let state = d.http("GET", &format!("/containers/{id}/json"), "").expect(200).json()["State"].clone();
        assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(7)));
        let _ = d.http("DELETE", &format!("/containers/{id}"), "").expect(204);
    }
    d.finish();
}

#[test]
fn without_an_upgrade_header_the_answer_is_200_and_raw() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["echo","x"],"AttachStdout":true}"#;
    let id = d.http("POST", "/containers/create", body).expect(201).json()["Id"].as_str().unwrap().to_string();
    let mut stream = d.connection();
    let path = format!("/v1.45/containers/{id}/attach?stdout=1&stream=1");
    stream.send(format!("POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
    let head = stream.head().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!((head.header("Content-Length"), head.header("Transfer-Encoding")), (None, None));
    assert_eq!(d.http("POST", &format!("/containers/{id}/start"), "").status, 204);
    assert_eq!(frames(&stream.rest().unwrap()), [(1, b"x\n".to_vec())]);
    d.finish();
}

#[test]
fn attach_replays_the_log_on_request() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "l1", "busybox", "echo", "old"]).ok();
    let mut stream = d.connection();
    let head = stream.upgrade("/containers/l1/attach?logs=1&stdout=1", "");
    assert_eq!(head.status, 101);
    assert_eq!(stream_text(&stream.rest().unwrap(), 1), "old\n");
    d.finish();
}

#[test]
fn websocket_attach() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-di", "--name", "c1", "busybox", "cat"]).ok();
    let mut stream = d.connection();
    let request = "GET /containers/c1/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://docker\r\n\r\n";
    stream.send(request.as_bytes()).unwrap();
    let head = stream.head().unwrap();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // A masked text frame "hi\n" with the mask 0.
    stream.send(&[0x81, 0x83, 0, 0, 0, 0, b'h', b'i', b'\n']).unwrap();
    let frame = stream.exactly(5).unwrap();
    assert_eq!((&frame[1..2], &frame[2..]), (&[3_u8][..], &b"hi\n"[..]), "{frame:?}");
    d.finish();
}

#[test]
fn a_client_that_does_not_read_blocks_nobody() {
    let d = with_busybox();
    let _ = d
        .docker(&[
            "run",
            "-d",
            "--name",
            "f1",
            "busybox",
            "sh",
            "-c",
            "i=0; while true; do i=$((i+1)); echo $i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
        ])
        .ok();
    let mut lazy = d.connection();
    let head = lazy.upgrade("/containers/f1/attach?stream=1&stdout=1", "");
    assert_eq!(head.status, 101);
    // Numbers of lines: the log's files come and go.
    let newest = || {
        let line = d.docker(&["logs", "--tail", "1", "f1"]).ok().stdout;
        line.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    let first = newest();
    assert!(eventually(|| newest() > first + (1 << 20) / 50), "the log stands still");
    drop(lazy);
    d.finish();
}
