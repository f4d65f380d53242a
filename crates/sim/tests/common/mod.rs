//! For tests of worlds with a relay.

use std::process::Command;

use longhand_sim::world::{Campaign, Route, Scenario};

/// Each of these interruptions of a payment gives the same run among others of this process and alone in the command's.
pub fn is_the_same_alone(route: Route, interruptions: &[&str]) {
    let campaign = Campaign::over(route).unwrap();
    for interruption in interruptions {
        let at = [interruption.parse().unwrap()];
        let verdict = campaign.play(Scenario::Pay, &at, 7);
        assert_eq!(verdict.happened, 1, "{verdict:?}");
        let trace = format!("{:016x}", verdict.trace);
        let alone = alone(route, interruption, verdict.nth);
        assert_eq!(alone, trace, "{verdict:?}");
    }
}

/// The trace of the run as the command plays it.
fn alone(route: Route, interruption: &str, nth: u32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhand-sim"));
    command.args(["--carrier", route.name(), "--scenario", "pay"]);
    command.args(["--seed", "7", "--at", interruption]);
    command.args(["--nth", &nth.to_string()]);
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let trace = said
        .split("trace ")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"));
    trace.split(',').next().unwrap().to_owned()
}
