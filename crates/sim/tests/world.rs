//! The simulated world's public interface: a payment interrupted at every step, and every scenario at random ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_sim::world::{Campaign, Counts, How, Kind, Route, Scenario};

/// Pairs of interruptions in a run of these tests, as many as take half a minute on two cores; `./test --long` draws a thousand, with
/// optimised code, and `longhand-sim --runs` as many as wanted.
const PAIRS: usize = 20;

#[test]
fn every_scenario_comes_to_its_end_undisturbed() {
    let campaign = Campaign::new().unwrap();
    let mut all = Counts::default();
    for scenario in Scenario::ALL {
        let verdict = campaign.play(scenario, &[], 1);
        assert_eq!(verdict.wrong, [], "{}", scenario.name());
        assert!(verdict.compactions > 0, "{}", scenario.name());
        all.iter_mut()
            .zip(verdict.steps)
            .for_each(|(all, steps)| *all += steps);
    }
    let has_steps = |kind: &Kind| all[*kind as usize] > 0;
    assert!(Route::Direct.kinds().iter().all(has_steps), "{all:?}");
}

#[test]
fn a_payment_is_whole_wherever_it_is_interrupted() {
    let campaign = Campaign::new().unwrap();
    // The other ways, and a day away, take long without optimisation; the command has them, and `kinds.rs` has some.
    let report = campaign.singles(&[Scenario::Pay], 1, |interruption| {
        let breaks = matches!(interruption.how, How::Before | How::Torn | How::After);
        breaks && !interruption.lasts_a_day()
    });
    assert!(report.runs() > 100);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn nothing_is_lost_when_two_things_go_wrong_at_once() {
    let campaign = Campaign::new().unwrap();
    let report = campaign.pairs(&Scenario::ALL, PAIRS, 1, |_| true);
    assert!(report.is_clean(), "{report}");
}
