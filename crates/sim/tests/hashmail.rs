//! The simulated world with a hashmail mailbox between the host and its phones, without and with Lightning Node Connect. In a file of its
//! own: the worlds of a process depend on those that were made before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_sim::world::{Campaign, Class, Interruption, Kind, Route, Scenario, SeededFault};

/// Pairs of interruptions: a part of what `longhand-sim --carrier hashmail --runs` draws.
const PAIRS: usize = 4;

/// Each way to interrupt a step of these kinds, once in the middle.
fn every_fault_once(route: Route, scenario: Scenario, kinds: &[Kind]) {
    let campaign = Campaign::over(route).unwrap();
    let calm = campaign.play(scenario, &[], 1);
    assert_eq!(calm.wrong, [], "{route:?} {scenario:?}");
    for &kind in kinds {
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
                assert_eq!(verdict.wrong, [], "{route:?} {scenario:?} {at}");
                assert_eq!(verdict.happened, 1, "{route:?} {scenario:?} {at}");
            }
        }
    }
}

#[test]
fn every_fault_of_a_hashmail_mailbox_leaves_a_payment_whole() {
    let kinds = [Kind::Relay, Kind::Frame];
    every_fault_once(Route::Hashmail, Scenario::Pay, &kinds);
}

#[test]
fn every_fault_of_a_relay_leaves_a_channel_whole_that_is_opened_over_lightning_node_connect() {
    every_fault_once(Route::Lnc, Scenario::OpenByHub, &[Kind::Relay]);
}

#[test]
fn nothing_is_lost_when_two_things_go_wrong_at_a_hashmail_mailbox() {
    let scenarios = [Scenario::PayBothWays, Scenario::Woken];
    for route in [Route::Hashmail, Route::Lnc] {
        let campaign = Campaign::over(route).unwrap();
        let report = campaign.pairs(&scenarios, PAIRS, 1, |at| !at.lasts_a_day());
        assert!(report.is_clean(), "{report}");
    }
}

/// Without these the tests above could not fail.
#[test]
fn the_checks_see_what_is_lost_behind_a_hashmail_mailbox() {
    let campaign = Campaign::over(Route::Lnc).unwrap();
    for (fault, class) in [
        (SeededFault::RelayGone, Class::Stuck),
        (SeededFault::LostPayment, Class::Payment),
        (SeededFault::Connection, Class::Leak),
    ] {
        let wrong = campaign.play_with_fault(Scenario::Pay, fault).wrong;
        let is_seen = wrong.iter().any(|fault| fault.class == class);
        assert!(is_seen, "{fault:?}: {wrong:?}");
    }
}
