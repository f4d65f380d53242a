#![allow(clippy::unwrap_used)]

use bitcoin::secp256k1::PublicKey;
use lightning::events::{InboundHTLCLocator, OutboundHTLCLocator};
use lightning::ln::types::ChannelId;
use longhand_proto::Code;

use super::*;
use crate::machine::testing::{Id, World, world_with_channel};
use crate::parts::testing::open;

const FEES: ForwardingFees = ForwardingFees {
    base_msat: 250,
    proportional_millionths: 3_000,
};

fn world() -> (World, Id) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    (world, hub)
}

/// LDK's event of the HTLC with this number, of 1,000,000 msat.
fn forwarded(htlc_id: u64, fee_msat: Option<u64>, node_id: PublicKey) -> Event {
    Event::PaymentForwarded {
        prev_htlcs: vec![InboundHTLCLocator {
            channel_id: ChannelId([1; 32]),
            htlc_id: Some(htlc_id),
            amount_msat: None,
            user_channel_id: None,
            node_id: Some(node_id),
        }],
        next_htlcs: vec![OutboundHTLCLocator {
            channel_id: ChannelId([2; 32]),
            amount_msat: None,
            user_channel_id: None,
            node_id: Some(node_id),
        }],
        total_fee_earned_msat: fee_msat,
        skimmed_fee_msat: None,
        claim_from_onchain_tx: fee_msat.is_none(),
        outbound_amount_forwarded_msat: 1_000_000,
    }
}

/// The fees of the only channel, as LDK has them.
fn of_channel(world: &mut World, id: Id) -> ForwardingFees {
    let channels = world.turn(id).channels();
    let [channel] = &channels[..] else {
        panic!("not one channel");
    };
    fees_of(&channel.config.unwrap())
}

#[test]
fn new_fees_are_those_of_every_channel_and_of_a_hub_that_is_loaded_again() {
    let (mut world, hub, _) = world_with_channel();
    let mut forwarding = Forwarding::default();
    let turn = world.turn(hub);
    assert_ne!(forwarding.fees(), FEES);
    forwarding.set_fees(turn, FEES).unwrap();
    assert_eq!(forwarding.fees(), FEES);
    let entries = entries(turn.journal.take());
    assert_eq!(of_channel(&mut world, hub), FEES);
    let again = Forwarding::load(&Journal::loading(entries));
    assert_eq!(again.fees(), FEES);
}

#[test]
fn a_channel_that_is_opened_later_gets_the_fees_when_it_is_ready() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(owner, 1_000_000);
    world.attach(owner);
    let set = crate::machine::input::HubRequest::SetFees(FEES);
    world.ask_hub(hub, set).unwrap();
    open(&mut world, owner, hub, 1, 0, false);
    assert_eq!(of_channel(&mut world, hub), FEES);
}

#[test]
fn fees_in_another_unit_are_refused_and_nothing_is_changed() {
    let (mut world, hub) = world();
    let turn = world.turn(hub);
    turn.journal.take();
    let mut forwarding = Forwarding::default();
    for fees in [
        ForwardingFees {
            base_msat: MAX_BASE_MSAT + 1,
            ..FEES
        },
        ForwardingFees {
            proportional_millionths: MAX_PROPORTIONAL_MILLIONTHS + 1,
            ..FEES
        },
    ] {
        let refused = forwarding.set_fees(turn, fees).unwrap_err();
        assert_eq!(refused.code, Code::BadFees);
    }
    assert!(turn.journal.is_empty());
    assert_eq!(forwarding.fees(), Forwarding::default().fees());
}

#[test]
fn forwarded_payments_are_counted_and_the_newest_are_listed_first() {
    let (mut world, hub) = world();
    let node_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(hub);
    turn.journal.take();
    let mut forwarding = Forwarding::default();
    for htlc_id in 0..3 {
        forwarding.record(turn, forwarded(htlc_id, Some(1_000 + htlc_id), node_id));
    }
    let entries = entries(turn.journal.take());
    let report = Forwarding::load(&Journal::loading(entries)).report(2);
    assert_eq!((report.count, report.amount_msat), (3, 3_000_000));
    assert_eq!(report.fee_msat, 3_003);
    let fees: Vec<_> = report.newest.iter().map(|it| it.fee_msat).collect();
    assert_eq!(fees, [Some(1_002), Some(1_001)]);
}

#[test]
fn of_many_forwarded_payments_the_newest_are_kept_and_all_are_counted() {
    let (mut world, hub) = world();
    let node_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(hub);
    turn.journal.take();
    let mut forwarding = Forwarding::default();
    let all = KEPT + 3;
    for htlc_id in 0..u64::try_from(all).unwrap() {
        forwarding.record(turn, forwarded(htlc_id, Some(1), node_id));
    }
    let stored = entries(turn.journal.take());
    let prefix = |entry: &&(String, Vec<u8>)| entry.0.starts_with(key::FORWARD);
    assert_eq!(stored.iter().filter(prefix).count(), KEPT);
    let report = Forwarding::load(&Journal::loading(stored)).report(usize::MAX);
    assert_eq!(report.newest.len(), KEPT);
    assert_eq!(report.count, u64::try_from(all).unwrap());
}

#[test]
fn a_payment_that_ldk_reports_again_is_counted_once() {
    let (mut world, hub) = world();
    let node_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(hub);
    let mut forwarding = Forwarding::default();
    forwarding.record(turn, forwarded(7, None, node_id));
    forwarding.record(turn, forwarded(7, None, node_id));
    assert_eq!(forwarding.report(10).count, 1);
}

/// The store after these writes.
fn entries(writes: Vec<longhand_store::Write>) -> Vec<(String, Vec<u8>)> {
    let mut entries = std::collections::BTreeMap::new();
    for write in writes {
        match write {
            longhand_store::Write::Put(key, value) => drop(entries.insert(key, value)),
            longhand_store::Write::Delete(key) => drop(entries.remove(&key)),
        }
    }
    entries.into_iter().collect()
}
