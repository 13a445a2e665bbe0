//! Random sequences of calls against the pure rules (`model::lifecycle`, `model::restart`): every answer is one that the rules
//! allow, illegal calls get the reference's refusal, daemons are killed and upgraded in between, and nothing is left.
//!
//! What the rules do not decide, when a program ends by itself, is left open: the test follows all states in which a container
//! may be, and an answer or a look leaves those that it agrees with. None left is a failure. `GANTRY_SEED` repeats a run, which
//! prints it; a failing sequence is shortened.

use std::collections::BTreeSet;

use model::lifecycle::{self, Input, Outcome, State};
use model::restart::Policy;
use model::signal;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, places, soak};

use crate::with_busybox;

/// Containers of one sequence.
const CONTAINERS: usize = 3;
/// Calls of one sequence.
const CALLS: std::ops::Range<usize> = 20..40;
/// Attempts to shorten a sequence that fails.
const SHORTER: u32 = 60;
/// Any process: the rules do not look at its number.
const PID: i32 = 1;
/// Exit codes that the programs may end with.
const CODES: [i32; 4] = [0, 3, 137, 143];

/// What a container runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    /// Until it is told to end.
    Stays,
    /// Ends with 3 at once.
    Ends,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Create(Program, &'static str),
    Start,
    Stop,
    Kill(&'static str),
    Pause,
    Unpause,
    Restart,
    Policy(&'static str),
    Exec,
    Health,
    Remove { force: bool },
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(usize, Call),
    /// The daemon is killed, and the next one takes over.
    Crash,
    Upgrade,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let policy = prop::sample::select(&["no", "always", "unless-stopped", "on-failure"][..]);
    let program = prop_oneof![2 => Just(Program::Stays), 1 => Just(Program::Ends)];
    let call = prop_oneof![
        4 => (program, policy.clone()).prop_map(|(program, policy)| Call::Create(program, policy)),
        4 => Just(Call::Start),
        2 => Just(Call::Stop),
        2 => prop::sample::select(&["KILL", "TERM", "HUP"][..]).prop_map(Call::Kill),
        3 => Just(Call::Pause),
        3 => Just(Call::Unpause),
        2 => Just(Call::Restart),
        1 => policy.prop_map(Call::Policy),
        2 => Just(Call::Exec),
        1 => Just(Call::Health),
        1 => any::<bool>().prop_map(|force| Call::Remove { force }),
    ];
    let step = prop_oneof![
        20 => (0..CONTAINERS, call).prop_map(|(which, call)| Step::Call(which, call)),
        1 => Just(Step::Crash),
        1 => Just(Step::Upgrade),
    ];
    prop::collection::vec(step, CALLS)
}

/// One thing that a container may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Possible {
    /// By its place in [`STATES`], which has an order.
    state: usize,
    /// A user wants it to stay down.
    manual: bool,
    /// It was sent a signal that may end it.
    doomed: bool,
    was_started: bool,
}

const RUNNING: State = State::Running { pid: PID };
const STATES: [State; 7] = [
    State::Created,
    State::Starting { first: true },
    State::Starting { first: false },
    RUNNING,
    State::Paused { pid: PID },
    State::Restarting,
    State::Exited,
];

impl Possible {
    fn state(self) -> State {
        STATES[self.state]
    }

    fn at(self, state: State) -> Possible {
        let place = STATES.iter().position(|known| *known == state).unwrap_or_else(|| panic!("{state:?}"));
        Possible { state: place, ..self }
    }

    fn runs(self) -> Possible {
        Possible { manual: false, doomed: false, was_started: true, ..self.at(RUNNING) }
    }
}

/// A container as the rules see it.
#[derive(Clone, Debug)]
struct Model {
    id: String,
    name: String,
    program: Program,
    policy: Policy,
    all: BTreeSet<Possible>,
}

impl Model {
    fn new(which: usize, id: String, program: Program, policy: &str) -> Model {
        let created = Possible { state: 0, manual: false, doomed: false, was_started: false };
        let policy = Policy::parse(policy, 0).unwrap();
        Model { id, name: name(which), program, policy, all: [created].into() }
    }

    /// Adds all that happens by itself.
    fn let_happen(&mut self) {
        let mut new: Vec<Possible> = self.all.iter().copied().collect();
        while let Some(one) = new.pop() {
            let mut facts = Vec::new();
            match one.state() {
                State::Starting { .. } => facts.push(one.runs()),
                State::Restarting => facts.push(one.at(State::Starting { first: false })),
                State::Running { .. } | State::Paused { .. } if one.doomed || self.program == Program::Ends => {
                    let restarts = |code: &i32| !one.manual && self.policy.restarts(*code, false, 0);
                    let codes = if self.program == Program::Ends && !one.doomed { &CODES[1..2] } else { &CODES[..] };
                    facts.extend(codes.iter().any(restarts).then(|| one.at(State::Restarting)));
                    facts.extend((!codes.iter().all(restarts)).then(|| one.at(State::Exited)));
                }
                _ => {}
            }
            new.extend(facts.into_iter().filter(|fact| self.all.insert(*fact)));
        }
    }

    /// What another daemon makes of it: what runs goes on, and what the policy wants is started.
    fn meet_daemon(&mut self) {
        self.let_happen();
        let mut after = BTreeSet::new();
        for one in &self.all {
            let state = one.state().at_rest();
            after.insert(one.at(state));
            if state == State::Exited && one.was_started {
                let due = |code: &i32| self.policy.restarts_at_boot(*code, one.manual, 0);
                if CODES.iter().any(due) {
                    after.insert(one.at(State::Restarting));
                }
                if CODES.iter().all(due) {
                    after.remove(&one.at(state));
                }
            }
        }
        self.all = after;
        self.let_happen();
    }

    /// Keeps the states from which a call may have had this answer, and goes on from there.
    fn answered(&mut self, call: Call, (status, text): (u16, &str)) -> Result<(), String> {
        self.let_happen();
        let before = self.all.clone();
        self.all = before.iter().flat_map(|one| self.after(*one, call, (status, text))).collect();
        if self.all.is_empty() {
            let states: Vec<_> = before.iter().map(|one| (one.state(), one.manual, one.doomed)).collect();
            return Err(format!("{call:?} of {} was answered {status} {text:?} in one of {states:?}", self.name));
        }
        self.let_happen();
        Ok(())
    }

    /// What a container in this state is after a call that was answered so; nothing: the rules have another answer.
    fn after(&self, one: Possible, call: Call, answer: (u16, &str)) -> Vec<Possible> {
        let is = |wanted: bool| if wanted { vec![one] } else { Vec::new() };
        match call {
            Call::Policy(_) => is(answer.0 == 200),
            Call::Exec => self.after_exec(one, answer),
            Call::Create(..) | Call::Health => is(true),
            _ => self.after_verb(one, call, answer),
        }
    }

    fn after_exec(&self, one: Possible, answer: (u16, &str)) -> Vec<Possible> {
        let (name, id) = (&self.name, &self.id);
        let wanted = match one.state() {
            State::Running { .. } => (201, String::new()),
            State::Paused { .. } => (409, format!("Container {name} is paused, unpause the container before exec")),
            State::Restarting => (409, format!("Container {id} is restarting, wait until the container is running")),
            _ => (409, format!("container {id} is not running")),
        };
        if wanted.0 == answer.0 && (answer.0 == 201 || wanted.1 == answer.1) { vec![one] } else { Vec::new() }
    }

    fn after_verb(&self, one: Possible, call: Call, (status, text): (u16, &str)) -> Vec<Possible> {
        let input = match call {
            Call::Start => Input::Start,
            Call::Stop => Input::Stop,
            Call::Kill(signal) => {
                // Any signal counts as a stop: the containers name none.
                Input::Kill { signal: signal::parse(signal).unwrap(), ends: true }
            }
            Call::Pause => Input::Pause,
            Call::Unpause => Input::Unpause,
            Call::Remove { force } => Input::Remove { force },
            // A stop, then a start; neither is refused.
            _ => return if status == 204 { vec![one.runs()] } else { Vec::new() },
        };
        // Its program may end in the middle of a pause or unpause.
        let is_ending = one.doomed || self.program == Program::Ends;
        if matches!(call, Call::Pause | Call::Unpause) && is_ending && matches!(status, 409 | 500) {
            return vec![one];
        }
        match lifecycle::step(one.state(), input) {
            Outcome::Accept(next, _) if status == 204 => self.accepted(one, call, next),
            Outcome::Nothing if status == 304 => vec![one],
            Outcome::Refuse(refusal) => {
                let error = refusal.to_error(&self.name, &self.id);
                let wanted = if error.kind() == model::Kind::System { 500 } else { 409 };
                if wanted == status && error.message() == text { vec![one] } else { Vec::new() }
            }
            // It was asked again when the start was over.
            _ => Vec::new(),
        }
    }

    fn accepted(&self, one: Possible, call: Call, next: State) -> Vec<Possible> {
        match call {
            Call::Start => vec![one.runs()],
            Call::Stop | Call::Kill("KILL") => vec![Possible { manual: true, doomed: false, ..one.at(State::Exited) }],
            Call::Kill("TERM") => vec![Possible { manual: true, doomed: true, ..one.at(next) }],
            Call::Kill(_) => vec![Possible { manual: true, ..one.at(next) }],
            // Gone.
            Call::Remove { .. } => vec![one.at(State::Exited)],
            _ => vec![one.at(next)],
        }
    }

    /// A look at the container leaves those states that have this word.
    fn seen(&mut self, word: &str) -> Result<(), String> {
        self.let_happen();
        let words: BTreeSet<_> = self.all.iter().map(|one| one.state().word()).collect();
        self.all.retain(|one| one.state().word() == word);
        match self.all.is_empty() {
            true => Err(format!("{} is {word}, and the rules have one of {words:?}", self.name)),
            false => Ok(()),
        }
    }

    /// Nothing but this can be.
    fn runs_for_sure(&self) -> bool {
        self.program == Program::Stays && self.all.iter().all(|one| one.state() == RUNNING && !one.doomed)
    }
}

fn name(which: usize) -> String {
    format!("model{which}")
}

/// The sequence against a daemon.
struct Run {
    d: Daemon,
    models: Vec<Option<Model>>,
}

impl Run {
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.d.http(method, path, body);
        let text = if answer.status >= 400 { answer.message() } else { String::new() };
        (answer.status, text)
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Call(which, call) => self.call(which, call)?,
            Step::Crash => {
                self.d.crash();
                self.models.iter_mut().flatten().for_each(Model::meet_daemon);
            }
            Step::Upgrade => {
                let mut command = self.d.namespaces().command(places::gantryd());
                command.arg("upgrade").arg(places::gantryd()).arg("--exec-root").arg(self.d.exec_root());
                let output = testkit::command::run(command.args(["--config-file", ""]), b"");
                if output.code != 0 {
                    return Err(format!("the upgrade failed: {output:?}"));
                }
                self.models.iter_mut().flatten().for_each(Model::meet_daemon);
            }
        }
        for model in self.models.iter_mut().flatten() {
            let shown = self.d.http("GET", &format!("/containers/{}/json", model.name), "").expect(200).json();
            model.seen(shown["State"]["Status"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }

    fn call(&mut self, which: usize, call: Call) -> Result<(), String> {
        if let Call::Create(program, policy) = call {
            return self.create(which, program, policy);
        }
        let path = format!("/containers/{}", name(which));
        let Some(model) = &self.models[which] else {
            let (status, text) = self.ask("POST", &format!("{path}/start"), "");
            let wanted = format!("No such container: {}", name(which));
            return if (status, &text) == (404, &wanted) { Ok(()) } else { Err(format!("{status} {text}")) };
        };
        let answer = match call {
            Call::Start => self.ask("POST", &format!("{path}/start"), ""),
            Call::Stop => self.ask("POST", &format!("{path}/stop?t=0"), ""),
            Call::Kill(signal) => self.ask("POST", &format!("{path}/kill?signal={signal}"), ""),
            Call::Pause => self.ask("POST", &format!("{path}/pause"), ""),
            Call::Unpause => self.ask("POST", &format!("{path}/unpause"), ""),
            Call::Restart => self.ask("POST", &format!("{path}/restart?t=0"), ""),
            Call::Policy(policy) => {
                self.ask("POST", &format!("{path}/update"), &json!({"RestartPolicy": {"Name": policy}}).to_string())
            }
            Call::Remove { force } => self.ask("DELETE", &format!("{path}?force={force}"), ""),
            Call::Exec => self.exec(&path, model.runs_for_sure())?,
            Call::Health => return self.health(&path, model.runs_for_sure()),
            Call::Create(..) => unreachable!("handled above"),
        };
        let Some(model) = &mut self.models[which] else { return Ok(()) };
        model.answered(call, (answer.0, &answer.1))?;
        match call {
            Call::Policy(policy) => model.policy = Policy::parse(policy, 0).unwrap(),
            Call::Remove { .. } if answer.0 == 204 => self.models[which] = None,
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, which: usize, program: Program, policy: &'static str) -> Result<(), String> {
        let script = match program {
            Program::Stays => "trap 'exit 0' TERM; trap '' HUP; while :; do sleep 0.2; done",
            Program::Ends => "exit 3",
        };
        let body = json!({
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 50_000_000},
            "HostConfig": {"RestartPolicy": {"Name": policy}, "NetworkMode": "none"},
        });
        let answer = self.d.http("POST", &format!("/containers/create?name={}", name(which)), &body.to_string());
        match (&self.models[which], answer.status) {
            (None, 201) => {
                let id = answer.json()["Id"].as_str().unwrap_or_default().to_owned();
                self.models[which] = Some(Model::new(which, id, program, policy));
                Ok(())
            }
            (Some(model), 409) if answer.message().contains(&format!("in use by container \"{}\"", model.id)) => Ok(()),
            _ => Err(format!("a create was answered {} {}", answer.status, answer.text())),
        }
    }

    /// The answer to its making; one that was made in a container that runs for sure runs, and ends well.
    fn exec(&self, path: &str, is_sure: bool) -> Result<(u16, String), String> {
        let made = self.d.http("POST", &format!("{path}/exec"), r#"{"Cmd":["true"]}"#);
        if made.status != 201 {
            return Ok((made.status, made.message()));
        }
        let id = made.json()["Id"].as_str().unwrap_or_default().to_owned();
        let (status, text) = self.ask("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#);
        let code = || self.d.http("GET", &format!("/exec/{id}/json"), "").expect(200).json()["ExitCode"].clone();
        if is_sure && !(status == 200 && eventually(PATIENCE, || code() == 0)) {
            return Err(format!("an exec in a container that runs: {status} {text}"));
        }
        Ok((201, String::new()))
    }

    /// One that runs for sure becomes healthy.
    fn health(&self, path: &str, is_sure: bool) -> Result<(), String> {
        let state = || self.d.http("GET", &format!("{path}/json"), "").expect(200).json()["State"].clone();
        if is_sure && !eventually(PATIENCE, || state()["Health"]["Status"] == "healthy") {
            return Err(format!("{path} does not become healthy: {}", state()));
        }
        Ok(())
    }
}

#[test]
fn every_answer_is_one_that_the_rules_allow() {
    let fixed = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seed = fixed.unwrap_or_else(|| {
        u64::from(std::process::id()) << 32 | std::time::UNIX_EPOCH.elapsed().map_or(0, |t| u64::from(t.subsec_nanos()))
    });
    println!("GANTRY_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = u32::try_from(soak::rounds(3, 200)).unwrap();
    let config = Config { cases, max_shrink_iters: SHORTER, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(&steps(), |steps| {
        let mut run = Run { d: with_busybox(), models: vec![None; CONTAINERS] };
        for (number, step) in steps.into_iter().enumerate() {
            run.step(step).map_err(|why| TestCaseError::fail(format!("step {number}: {why}")))?;
        }
        run.d.finish();
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("GANTRY_SEED={seed}\n{error}");
    }
}
