//! Many clients ask everything of a few containers at once, whatever becomes of them: every call is answered.

use std::time::SystemTime;

use serde_json::json;

use crate::calls::{self, COUNTER};
use crate::ledger::Dice;
use crate::with_busybox;

const CLIENTS: u64 = 8;
/// Calls of each client.
const CALLS: u64 = 300;
const NAMES: u64 = 3;

/// Method, path and body of a call.
fn any_call(dice: &mut Dice) -> (&'static str, String, String) {
    let name = format!("r{}", dice.below(NAMES));
    let post = |verb: &str| ("POST", format!("/containers/{name}/{verb}"), String::new());
    match dice.below(18) {
        0 | 1 => {
            let policy = if dice.below(3) == 0 { "always" } else { "no" };
            let script = if policy == "always" { "sleep 0.2" } else { COUNTER };
            let body = calls::with_host(calls::script(script), json!({"RestartPolicy": {"Name": policy}}));
            ("POST", format!("/containers/create?name={name}"), body.to_string())
        }
        2..=4 => post("start"),
        5 => post("stop?t=0"),
        6 => post("stop?t=1"),
        7 => post("kill"),
        8 => post("kill?signal=HUP"),
        9 => post("pause"),
        10 => post("unpause"),
        11 => post("restart?t=0"),
        12 => post(&format!("rename?name=r{}", dice.below(NAMES))),
        13 => post("resize?h=10&w=20"),
        14 => ("GET", format!("/containers/{name}/top"), String::new()),
        15 => ("POST", format!("/commit?container={name}"), String::new()),
        16 => ("POST", format!("/containers/{name}/exec"), json!({"Cmd": ["true"]}).to_string()),
        _ => ("DELETE", format!("/containers/{name}?v=1&force={}", dice.below(2)), String::new()),
    }
}

#[test]
fn every_call_is_answered() {
    let d = with_busybox();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed}");
    let client = |number: u64| {
        let mut dice = Dice::new(seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let mut connection = d.connection();
        let mut ask = |method: &str, path: &str, body: &str| {
            let answer = connection.request(method, path, body);
            // What the reference calls a fault of its own, too.
            let usual = ["is not paused", "No such container", "is marked for removal and cannot be started"];
            let usual = usual.iter().any(|text| answer.text().contains(text));
            assert!(answer.status < 500 || usual, "{method} {path}: {} {}", answer.status, answer.text());
            answer
        };
        for _ in 0..CALLS {
            let (method, path, body) = any_call(&mut dice);
            let answer = ask(method, &path, &body);
            if path.ends_with("/exec") && answer.status == 201 {
                let id = answer.json()["Id"].as_str().unwrap().to_owned();
                ask("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#);
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || client(number));
        }
    });
    for number in 0..NAMES {
        let path = format!("/containers/r{number}?force=1&v=1");
        assert!(matches!(d.http("DELETE", &path, "").status, 204 | 404));
    }
    let _ = d.http("POST", r#"/images/prune?filters={"dangling":["true"]}"#, "").expect(200);
    d.finish();
}
