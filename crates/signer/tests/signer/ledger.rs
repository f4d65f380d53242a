//! The ledger is the signer's memory: its records restore the same signer, and no other input is accepted as a ledger.

use std::sync::OnceLock;

use bitcoin::Network;
use longhand_lying_host::scene::*;
use longhand_signer::{LedgerError, LedgerRecord, Seed, Signer, SignerError};
use proptest::prelude::*;

/// A phone with a channel in the middle of an update, payments and intents.
fn busy() -> Phone {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let made = phone.signer.new_payment(20_000_000, [1; 32], NOW).unwrap();
    phone.keep(&made.records);
    let paid = [Htlc::incoming(made.value, 20_000_000)];
    for step in 1..4 {
        phone
            .ask(validate(&channel.holder(step, 400_000, &paid)))
            .unwrap();
        phone.ask(release(step - 1)).unwrap();
        phone
            .ask(sign(&channel.theirs(step, 400_000, &paid)))
            .unwrap();
        phone.ask(channel.revocation(step - 1)).unwrap();
    }
    phone
        .ask(validate(&channel.holder(4, 400_000, &[])))
        .unwrap();
    phone.ask(sign(&channel.theirs(4, 400_000, &[]))).unwrap();
    phone.intend_force(&channel);
    phone
        .ask(sign_holder(&channel.holder(4, 400_000, &[])))
        .unwrap();
    let records = phone
        .signer
        .add_intent([1; 32], 5_000, 50, NOW + 60, NOW)
        .unwrap()
        .records;
    phone.keep(&records);
    phone
}

/// The snapshot that a busy phone would write to a new file.
static BUSY: OnceLock<LedgerRecord> = OnceLock::new();

fn restore<R: AsRef<[u8]>>(records: &[R]) -> Result<Signer, SignerError> {
    Signer::restore(&seed(), Network::Regtest, &LEDGER_KEY, records)
}

fn error<R: AsRef<[u8]>>(records: &[R]) -> LedgerError {
    match restore(records) {
        Err(SignerError::Ledger(error)) => error,
        _ => panic!("should have been refused"),
    }
}

#[test]
fn the_records_give_the_same_state_again() {
    let phone = busy();
    let restored = restore(&phone.disk).unwrap();
    assert_eq!(restored.version(), phone.signer.version());
    assert_eq!(restored.snapshot(), phone.signer.snapshot());
}

#[test]
fn a_snapshot_stands_for_all_before_it() {
    let mut phone = busy();
    let before = phone.signer.snapshot();
    phone.disk = vec![before.as_bytes().to_vec()];
    phone.restart();
    assert_eq!(phone.signer.snapshot(), before);
    let records = phone
        .signer
        .add_intent([2; 32], 1, 1, NOW, NOW)
        .unwrap()
        .records;
    assert_eq!(records[0].sequence(), before.sequence() + 1);
    phone.keep(&records);
    let after = phone.signer.snapshot();
    phone.restart();
    assert_eq!(phone.signer.snapshot(), after);
}

#[test]
fn one_call_is_one_record_and_records_count_up() {
    let phone = busy();
    let restored = restore(&phone.disk[..3]).unwrap();
    assert_eq!(
        (restored.version(), phone.signer.version()),
        (3, phone.disk.len() as u64)
    );
}

#[test]
fn an_older_ledger_can_be_recognised() {
    let phone = busy();
    let older = restore(&phone.disk[..phone.disk.len() - 1]).unwrap();
    assert!(older.version() < phone.signer.version());
}

#[test]
fn a_missing_record_is_noticed() {
    let mut phone = busy();
    phone.disk.remove(2);
    assert_eq!(
        error(&phone.disk),
        LedgerError::Gap {
            expected: 3,
            found: 4
        }
    );
}

#[test]
fn an_old_snapshot_after_newer_records_is_noticed() {
    let mut phone = Phone::new();
    let made = phone.signer.new_payment(1, [1; 32], NOW).unwrap();
    phone.keep(&made.records);
    let old = phone.signer.snapshot().as_bytes().to_vec();
    let made = phone.signer.new_payment(1, [2; 32], NOW).unwrap();
    phone.keep(&made.records);
    phone.disk.push(old);
    assert_eq!(
        error(&phone.disk),
        LedgerError::Gap {
            expected: 3,
            found: 1
        }
    );
}

#[test]
fn another_seeds_or_networks_ledger_is_foreign() {
    let phone = busy();
    let other = Seed::from_entropy(&[9; 16]).unwrap();
    let refused = Signer::restore(&other, Network::Regtest, &LEDGER_KEY, &phone.disk).err();
    assert_eq!(refused, Some(SignerError::Ledger(LedgerError::Foreign)));
    let refused = Signer::restore(&seed(), Network::Signet, &LEDGER_KEY, &phone.disk).err();
    assert_eq!(refused, Some(SignerError::Ledger(LedgerError::Foreign)));
}

#[test]
fn a_ledger_says_whose_it_is() {
    // Field 2 (sequence) = 1, without entries; and the same as a snapshot.
    assert!(matches!(
        error(&[vec![8, 1, 16, 1]]),
        LedgerError::Corrupt(1, _)
    ));
    assert!(matches!(
        error(&[vec![8, 1, 16, 9, 24, 1]]),
        LedgerError::Corrupt(9, _)
    ));
}

#[test]
fn a_newer_format_is_named() {
    // Field 1 (format) = 2.
    assert_eq!(error(&[vec![8, 2, 16, 1]]), LedgerError::Newer(2));
}

#[test]
fn records_do_not_print_what_they_hold() {
    let mut phone = Phone::new();
    let made = phone.signer.new_payment(1, [0xab; 32], NOW).unwrap();
    let printed = format!("{:?}", made.records);
    assert!(
        printed.starts_with("[LedgerRecord(1, ") && !printed.contains("171"),
        "{printed}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any history of payments and intents is the same after a restart, from records or from a snapshot.
    #[test]
    fn any_history_is_the_same_after_a_restart(steps in prop::collection::vec((any::<[u8; 32]>(), any::<u64>(), any::<bool>()), 0..12)) {
        let mut phone = Phone::new();
        for (bytes, number, payment) in steps {
            let records = if payment {
                phone.signer.new_payment(number, bytes, NOW).map(|made| made.records)
            } else {
                phone.signer.add_intent(bytes, number, number / 100, NOW, NOW).map(|made| made.records)
            };
            phone.keep(&records.unwrap_or_default());
        }
        let snapshot = phone.signer.snapshot();
        let replayed = restore(&phone.disk).unwrap();
        prop_assert_eq!(replayed.snapshot(), snapshot.clone());
        let jumped = restore(&[snapshot.as_bytes()]).unwrap();
        prop_assert_eq!(jumped.snapshot(), snapshot);
    }

    /// A damaged ledger is refused or read, but never breaks the reader.
    #[test]
    fn a_damaged_record_does_not_panic(place in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
        let mut snapshot = BUSY.get_or_init(|| busy().signer.snapshot()).as_bytes().to_vec();
        let place = place.index(snapshot.len());
        snapshot[place] ^= flip;
        let _ = restore(&[&snapshot]);
        snapshot.truncate(cut.index(snapshot.len()));
        let _ = restore(&[&snapshot]);
    }
}
