//! `cargo xtask soak [NAME]`: the full forms of tests whose short form runs in `cargo xtask test`.
//!
//! One row per test. A test takes its number of rounds from `testkit::soak::rounds`, which reads the variable that this
//! task sets. Tests run one after the other, so that the figures of one do not depend on the others.

use crate::test::Tally;
use crate::{compose, libraries, setup, shell};

/// A long test: its name here, its package, its test program, and the filter that selects it there.
struct Soak {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    filter: &'static str,
}

/// Sorted by name.
const SOAKS: &[Soak] = &[
    client_test("blocked", "client", "blocked::what_users_make_slow_stops_nobody"),
    client_test("builds-killed", "crash", "builds_killed::the_next_build_uses_what_was_finished"),
    client_test("clients-waiting", "client", "waiting::clients_that_wait_are_bounded"),
    client_test("copies-killed", "crash", "copies_killed::copies_are_whole_or_gone_whenever_a_daemon_dies"),
    client_test("crash-loops", "crash", "crowds::crash_loops_cost_little"),
    Soak { name: "crowd", package: "network", program: "it", filter: "crowd::a_daemon_starts_beside_many" },
    client_test("cycles", "client", "cycles::runs_of_every_kind_leave_nothing_in_the_daemon"),
    client_test("daemon-killed", "crash", "daemon_killed::fifty_times_under_load"),
    client_test("events-killed", "crash", "journal::a_killed_daemon_loses_no_event"),
    client_test("events-slow", "client", "journal::a_reader_that_sleeps_misses_none"),
    client_test("execs-unstarted", "crash", "budgets::execs_that_are_never_started_are_bounded"),
    client_test("images-killed", "crash", "images_killed::a_hundred_times_while_images_come_and_go"),
    client_test("lists", "crash", "crowds::lists_of_many_are_whole"),
    client_test("memory", "crash", "budgets::a_day_of_mixed_work_leaves_no_memory_behind"),
    client_test("model", "crash", "model::every_answer_is_one_that_the_rules_allow"),
    client_test("networks-killed", "client", "networks::a_daemon_killed_while_networks_change_leaks_nothing"),
    client_test("parts-swapped", "client", "escape::a_part_that_is_swapped_for_a_link_leads_nowhere"),
    client_test("ports-killed", "crash", "ports_killed::ranges_are_what_their_definitions_say_whenever_a_daemon_dies"),
    client_test("power", "crash", "power::what_was_acknowledged_outlives_the_power"),
    client_test("rows-damaged", "client", "quarantine::a_row_that_cannot_be_read_keeps_nothing_else_from_working"),
    client_test("run-count", "crash", "run_count::a_daemon_that_dies_grants_no_further_runs"),
    client_test("stops", "crash", "crowds::a_stop_of_many_waits_for_none_that_ignores_it"),
    client_test("upgrade", "client", "upgrade_live::nobody_notices_an_upgrade"),
    client_test("volumes-killed", "crash", "volumes_killed::volumes_are_let_go_whenever_a_daemon_dies"),
    client_test("volumes-raced", "client", "storage::a_volume_that_a_create_names_is_not_removed_under_it"),
];

const fn client_test(name: &'static str, program: &'static str, filter: &'static str) -> Soak {
    Soak { name, package: "client-tests", program, filter }
}

/// Runs the soak tests that `words` name, or all.
pub fn run(words: &[String]) -> Result<(), String> {
    shell::require_root("cargo xtask soak")?;
    if let Some(word) = words.iter().find(|word| SOAKS.iter().all(|soak| soak.name != **word)) {
        let names: Vec<&str> = SOAKS.iter().map(|soak| soak.name).collect();
        return Err(format!("no soak test is called {word}; there are: {}", names.join(", ")));
    }
    setup::programs()?;
    libraries::all()?;
    compose::all()?;
    shell::run(&mut shell::cargo(&["build", "-p", "gantryd", "-p", "testkit", "--bins"]))?;
    let mut tally = Tally::default();
    for soak in SOAKS.iter().filter(|soak| words.is_empty() || words.iter().any(|word| word == soak.name)) {
        println!("\n== {}", soak.name);
        one(soak, &mut tally)?;
    }
    tally.finish("cargo xtask soak")
}

fn one(soak: &Soak, tally: &mut Tally) -> Result<(), String> {
    let args = ["test", "-p", soak.package, "--test", soak.program, "--", soak.filter, "--nocapture"];
    let mut command = shell::cargo(&args);
    command.env("GANTRY_SOAK", "1");
    let before = tally.counted();
    shell::watch(&mut command, |line| tally.read(line))?;
    if tally.counted() == before {
        return Err(format!("{}: no test ran", soak.name));
    }
    Ok(())
}
