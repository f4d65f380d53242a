//! What the phone sees of the HTLCs of a channel that was closed.

use bitcoin::Transaction;
use longhand_lying_host::funded::{deep, mine_and_prove, reorganise, spend_of, spend_of_htlc};
use longhand_lying_host::invoice::{Draft, ask_for, finish};
use longhand_lying_host::scene::*;
use longhand_signer::{SeenHtlc, Signer};

const AMOUNT_MSAT: u64 = 50_000_000;
const EXPIRY: u32 = 500;
/// LDK gives the HTLC up so many blocks before it expires.
const FAIL_BACK: u32 = EXPIRY - 39;

/// A channel with an HTLC for an invoice of the owner's; the peer's commitment with it, and a transaction that spends the HTLC there.
fn paid(phone: &mut Phone) -> (Channel, Transaction, Transaction) {
    let channel = deep(phone, 6);
    let asked = ask_for(phone, AMOUNT_MSAT);
    finish(phone, &Draft::of(&asked), &asked).unwrap();
    let htlcs = [Htlc::incoming(asked.payment_hash, AMOUNT_MSAT)];
    for op in channel.peers_update(1, 400_000, &htlcs) {
        phone.ask(op).unwrap();
    }
    let close = channel.theirs(1, 400_000, &htlcs);
    let close = close.trust().built_transaction().transaction.clone();
    let spend = spend_of_htlc(&close, AMOUNT_MSAT / 1_000);
    (channel, close, spend)
}

fn deadline(phone: &Phone) -> Option<u32> {
    phone.signer.next_deadline().map(|next| next.height)
}

fn htlcs(signer: &Signer) -> Vec<SeenHtlc> {
    let channels = signer.seen_channels();
    channels.flat_map(|channel| channel.htlcs).collect()
}

/// Mines until so many blocks confirm the newest transaction.
fn bury(phone: &mut Phone, blocks: u32) {
    phone.chain.mine_empty(blocks - 1);
    phone.show_headers();
}

#[test]
fn an_htlc_of_a_close_has_a_deadline_until_its_spend_is_deep() {
    let mut phone = Phone::new();
    let (_, close, spend) = paid(&mut phone);
    assert_eq!(deadline(&phone), Some(FAIL_BACK));
    mine_and_prove(&mut phone, &close);
    bury(&mut phone, 6);
    assert_eq!(deadline(&phone), Some(FAIL_BACK));
    mine_and_prove(&mut phone, &spend);
    bury(&mut phone, 5);
    assert_eq!(deadline(&phone), Some(FAIL_BACK), "it may be unspent again");
    bury(&mut phone, 2);
    assert_eq!(deadline(&phone), None);
    phone.restart();
    assert_eq!(deadline(&phone), None);

    let height = phone.chain.height() - 6;
    reorganise(&mut phone, height, 7);
    assert_eq!(deadline(&phone), Some(FAIL_BACK), "it is unspent again");
}

#[test]
fn a_close_by_a_transaction_that_is_not_on_record_ends_no_deadline() {
    let mut phone = Phone::new();
    let (channel, ..) = paid(&mut phone);
    mine_and_prove(&mut phone, &spend_of(&channel));
    bury(&mut phone, 6);
    assert_eq!(deadline(&phone), Some(FAIL_BACK));
}

#[test]
fn a_close_by_a_commitment_without_the_htlc_ends_its_deadline() {
    let mut phone = Phone::new();
    let channel = deep(&mut phone, 6);
    let asked = ask_for(&mut phone, AMOUNT_MSAT);
    finish(&mut phone, &Draft::of(&asked), &asked).unwrap();
    let htlcs = [Htlc::incoming(asked.payment_hash, AMOUNT_MSAT)];
    let [validate, ..] = channel.peers_update(1, 400_000, &htlcs);
    phone.ask(validate).unwrap();
    assert_eq!(deadline(&phone), Some(FAIL_BACK));
    let close = channel.theirs(0, 400_000, &[]);
    let close = close.trust().built_transaction().transaction.clone();
    mine_and_prove(&mut phone, &close);
    bury(&mut phone, 6);
    assert_eq!(deadline(&phone), None);
}

#[test]
fn the_owner_sees_what_became_of_each_htlc() {
    let mut phone = Phone::new();
    let (_, close, spend) = paid(&mut phone);
    assert_eq!(htlcs(&phone.signer), []);
    mine_and_prove(&mut phone, &close);
    let [waits] = htlcs(&phone.signer)[..] else {
        panic!("one HTLC")
    };
    assert_eq!(
        (waits.amount_msat, waits.cltv_expiry),
        (AMOUNT_MSAT, EXPIRY)
    );
    assert!(!waits.is_outgoing && waits.spent_by.is_none() && !waits.was_claimed());

    mine_and_prove(&mut phone, &spend);
    let seen = htlcs(&phone.signer);
    let spent = (spend.compute_txid(), phone.chain.height());
    assert_eq!(seen[0].spent_by, Some(spent));
    assert!(seen[0].was_claimed(), "nobody could take it back before");

    let snapshot = phone.signer.snapshot();
    let network = bitcoin::Network::Regtest;
    let records = [snapshot.as_bytes()];
    let mut restored = Signer::restore(&seed(), network, &LEDGER_KEY, records).unwrap();
    restored.set_headers(phone.signer.headers().clone());
    assert_eq!(htlcs(&restored), seen);
}

#[test]
fn an_htlc_that_was_spent_after_its_expiry_may_have_been_taken_back() {
    let mut phone = Phone::new();
    let (_, close, spend) = paid(&mut phone);
    mine_and_prove(&mut phone, &close);
    let height = phone.chain.height();
    phone.chain.mine_empty(EXPIRY - height);
    mine_and_prove(&mut phone, &spend);
    let seen = htlcs(&phone.signer);
    assert!(seen[0].spent_by.is_some() && !seen[0].was_claimed());
}
