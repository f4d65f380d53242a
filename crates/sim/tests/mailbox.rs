//! The simulated world with a relay between the host and its phones, which dies, is slow, repeats, reorders and loses. In a file of
//! its own: the worlds of a process depend on those that were made before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use longhand_sim::world::{
    Campaign, Class, How, Interruption, Kind, Length, Route, Scenario, SeededFault,
};

/// Pairs of interruptions: a part of what `longhand-sim --carrier mailbox --runs` draws.
const PAIRS: usize = 12;

fn campaign() -> Campaign {
    Campaign::over(Route::Mailbox).unwrap()
}

/// Each way to interrupt the relay, and each to interrupt a connection to it, once in the middle.
#[test]
fn every_fault_of_a_relay_leaves_all_whole() {
    let campaign = campaign();
    for scenario in [Scenario::Pay, Scenario::OpenByHub, Scenario::Close] {
        let calm = campaign.play(scenario, &[], 1);
        assert_eq!(calm.wrong, [], "{scenario:?}");
        for kind in [Kind::Relay, Kind::Frame] {
            for &(how, length) in kind.ways() {
                let step = calm.steps[kind as usize] / 2 + 1;
                let at = Interruption {
                    kind,
                    step,
                    how,
                    length,
                };
                if !at.lasts_a_day() {
                    let verdict = campaign.play(scenario, &[at], 1);
                    assert_eq!(verdict.wrong, [], "{scenario:?} {at}");
                    assert_eq!(verdict.happened, 1, "{scenario:?} {at}");
                }
            }
        }
    }
}

#[test]
fn a_payment_is_whole_wherever_the_relay_dies() {
    let report = campaign().singles(&[Scenario::Pay], 1, |at| {
        let dies = matches!(at.how, How::Before | How::After);
        at.kind == Kind::Relay && dies && at.length == Length::Now
    });
    assert!(report.runs() > 40, "{report}");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn nothing_is_lost_when_two_things_go_wrong_at_a_relay() {
    let scenarios = [
        Scenario::PayBothWays,
        Scenario::Woken,
        Scenario::OpenByPhone,
    ];
    let report = campaign().pairs(&scenarios, PAIRS, 1, |at| !at.lasts_a_day());
    assert!(report.is_clean(), "{report}");
}

/// Without these the tests above could not fail.
#[test]
fn the_checks_see_what_is_lost_behind_a_relay() {
    let campaign = campaign();
    for (fault, class) in [
        (SeededFault::RelayGone, Class::Stuck),
        (SeededFault::LostPayment, Class::Payment),
        (SeededFault::SpentCoins, Class::Unaccounted),
        (SeededFault::Connection, Class::Leak),
    ] {
        let wrong = campaign.play_with_fault(Scenario::Pay, fault).wrong;
        let is_seen = wrong.iter().any(|fault| fault.class == class);
        assert!(is_seen, "{fault:?}: {wrong:?}");
    }
}

#[test]
fn a_run_with_a_relay_is_the_same_alone_and_among_others() {
    let interruptions = ["relay:5:before", "relay:10:swapped", "relay:15:late:20s"];
    common::is_the_same_alone(Route::Mailbox, &interruptions);
}
