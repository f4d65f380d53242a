//! A run is the same wherever it is played: alone in a process of its own, after others, and beside others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;
use std::thread;

use longhand_sim::world::{Campaign, Scenario};

const SEED: u64 = 7;
const INTERRUPTIONS: [&str; 3] = ["ledger:5:torn", "store:9:after", "frame:29:after:grace"];

/// The trace of the run as the command plays it.
fn alone(interruption: &str, nth: u32) -> String {
    let scenario = Scenario::PayBothWays.name();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhand-sim"));
    command.args(["--scenario", scenario, "--at", interruption]);
    command.args(["--seed", &SEED.to_string(), "--nth", &nth.to_string()]);
    let output = command.output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    let trace = said
        .split("trace ")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"));
    trace.split(',').next().unwrap().to_owned()
}

#[test]
fn a_run_is_the_same_alone_and_among_others() {
    // The second campaign of a process has the same world.
    Campaign::new().unwrap();
    let campaign = Campaign::new().unwrap();
    let play = |interruption: &str| {
        let at = [interruption.parse().unwrap()];
        campaign.play(Scenario::PayBothWays, &at, SEED)
    };
    let others = || [1, 2, 3].map(|seed| campaign.play(Scenario::Fail, &[], seed));
    let verdicts = thread::scope(|scope| {
        let others = scope.spawn(others);
        let verdicts = INTERRUPTIONS.map(play);
        others.join().unwrap();
        verdicts
    });
    for (interruption, verdict) in INTERRUPTIONS.iter().zip(&verdicts) {
        assert_eq!(verdict.happened, 1, "{verdict:?}");
        let trace = format!("{:016x}", verdict.trace);
        assert_eq!(alone(interruption, verdict.nth), trace, "{verdict:?}");
    }
}

/// The runs wait for a processor, and draw the same names for their temporary directories.
#[test]
fn a_run_is_the_same_in_six_processes_at_once() {
    let traces: Vec<String> = thread::scope(|scope| {
        let runs = [(); 6].map(|()| scope.spawn(|| alone("store:9:after", 3)));
        runs.map(|run| run.join().unwrap()).into()
    });
    assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
}
