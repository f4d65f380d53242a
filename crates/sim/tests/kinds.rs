//! Every way to interrupt a run, and the faults that the checks must find.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_sim::world::{Campaign, Class, Interruption, Kind, Scenario, SeededFault, Verdict};

fn play(campaign: &Campaign, scenario: Scenario, at: &[&str], seed: u64) -> Verdict {
    let at: Vec<Interruption> = at.iter().map(|at| at.parse().unwrap()).collect();
    campaign.play(scenario, &at, seed)
}

fn leaves_all_whole(scenario: Scenario, at: &[&str], seed: u64) {
    let campaign = Campaign::new().unwrap();
    let verdict = play(&campaign, scenario, at, seed);
    assert_eq!(verdict.wrong, []);
    assert_eq!(verdict.happened, at.len());
}

/// Not every forgotten commit is found: when the node writes again before the host dies, that write has all of it.
#[test]
fn the_checks_see_a_store_that_lies() {
    let campaign = Campaign::new().unwrap();
    let seen = (6..=14).any(|step| {
        let at = format!("store:{step}:forgotten");
        let verdict = play(&campaign, Scenario::Pay, &[&at], 1);
        assert_eq!(verdict.happened, 1);
        // LDK does not load a manager that is ahead of its monitors.
        verdict
            .wrong
            .iter()
            .any(|fault| fault.class == Class::Stuck)
    });
    assert!(seen);
}

#[test]
fn the_checks_see_every_seeded_fault() {
    let campaign = Campaign::new().unwrap();
    for (fault, class) in [
        (SeededFault::ClosedChannel, Class::Closed),
        (SeededFault::LostPayment, Class::Payment),
        (SeededFault::SpentCoins, Class::Unaccounted),
        (SeededFault::SoldPreimage, Class::Signed),
        (SeededFault::Panic, Class::Panic),
        (SeededFault::Task, Class::Leak),
        (SeededFault::Connection, Class::Leak),
    ] {
        let wrong = campaign.play_with_fault(Scenario::Pay, fault).wrong;
        let is_seen = wrong.iter().any(|fault| fault.class == class);
        assert!(is_seen, "{fault:?}: {wrong:?}");
    }
}

#[test]
fn every_way_to_interrupt_leaves_a_payment_whole() {
    let campaign = Campaign::new().unwrap();
    let kinds = [
        Kind::Frame,
        Kind::StoreWrite,
        Kind::LedgerWrite,
        Kind::PeerMessage,
    ];
    every_way(&campaign, Scenario::Pay, &kinds);
}

#[test]
fn every_way_to_interrupt_a_call_leaves_who_sleeps_whole() {
    let campaign = Campaign::new().unwrap();
    every_way(&campaign, Scenario::Woken, &[Kind::WakeCall]);
    every_way(&campaign, Scenario::Deadline, &[Kind::WakeCall]);
}

/// Tries each way once, in the middle, but for those that last a day.
fn every_way(campaign: &Campaign, scenario: Scenario, kinds: &[Kind]) {
    let calm = campaign.play(scenario, &[], 1);
    for (kind, steps) in Kind::ALL.into_iter().zip(calm.steps) {
        if !kinds.contains(&kind) {
            continue;
        }
        assert!(steps > 0, "{scenario:?} has no {kind:?}");
        for &(how, length) in kind.ways() {
            let interruption = Interruption {
                kind,
                step: steps / 2 + 1,
                how,
                length,
            };
            if !interruption.lasts_a_day() {
                let verdict = campaign.play(scenario, &[interruption], 1);
                assert_eq!(verdict.wrong, [], "{scenario:?} {interruption}");
                assert_eq!(verdict.happened, 1, "{scenario:?} {interruption}");
            }
        }
    }
}

/// Each transaction that is broadcast counts, and there may not be hundreds.
#[test]
fn a_close_that_no_block_takes_for_a_day_is_paid_for_with_few_transactions() {
    leaves_all_whole(Scenario::ForceCloseByPhone, &["frame:20:before:day"], 1);
}

#[test]
fn a_chain_that_is_late_away_or_reorganises_leaves_a_new_channel_whole() {
    let campaign = Campaign::new().unwrap();
    let at = [
        "late:20s",
        "fails",
        "fails:grace",
        "unheard",
        "reorg1",
        "reorg2",
    ];
    for how in at {
        let at = format!("chain:12:{how}");
        let verdict = play(&campaign, Scenario::OpenByHub, &[&at], 1);
        assert_eq!(verdict.wrong, [], "{at}");
        assert_eq!(verdict.happened, 1, "{at}");
    }
}

/// `--scenario raise-fees --seed 1 --at chain:1:fails:day`: the books were read before the chain was back, and with it
/// the new fee rates.
#[test]
fn the_books_are_read_when_nothing_is_late_any_more() {
    leaves_all_whole(Scenario::RaiseFees, &["chain:1:fails:day"], 1);
}

/// `--scenario open-by-phone --seed 8019`: all blocks were mined while the phone could not sign the funding.
#[test]
fn a_channel_whose_funding_is_late_still_gets_its_blocks() {
    let at = ["ledger:5:full:grace", "ledger:9:after"];
    leaves_all_whole(Scenario::OpenByPhone, &at, 8019);
}
