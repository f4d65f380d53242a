//! Commitments that are not what the channel's parameters make of them, or not the next ones (BOLT 3).

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use lightning::util::ser::Writeable;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignCounterpartyCommitment, ValidateHolderCommitment};
use longhand_signer::Rule;

use crate::scene::*;
use crate::tlv::{Fields, decode, encode};
use crate::{Case, Cases};

/// Fields of LDK's `CommitmentTransaction`.
const TO_BROADCASTER: u64 = 2;
const TO_COUNTERSIGNATORY: u64 = 4;
const KEYS: u64 = 8;
const BUILT: u64 = 10;
const HTLCS: u64 = 12;
/// Outputs of [`step`]: both balances, both anchors and two HTLCs.
const OUTPUTS: usize = 6;

pub(super) const PAID_MSAT: u64 = 50_000_000;
pub(super) const AFTER_SAT: u64 = 350_000;
pub(super) const PAID: [u8; 32] = [6; 32];

/// Whose commitment is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Owners,
    Peers,
}

pub(super) const BOTH: [Whose; 2] = [Whose::Owners, Whose::Peers];

/// A channel whose owner has asked to pay, and the HTLC of that payment and an incoming one.
pub(super) fn step(phone: &mut Phone) -> (Channel, [Htlc; 2]) {
    let channel = Channel::open(phone);
    phone.intend(PAID, PAID_MSAT);
    let paid = Htlc::outgoing(PAID, PAID_MSAT);
    (channel, [paid, Htlc::incoming([7; 32], 40_000_000)])
}

/// The next commitment of a side, encoded: for the owner's with the peer's signatures, after the peer has its own.
fn next(phone: &mut Phone, whose: Whose) -> (Channel, Vec<u8>) {
    let (channel, htlcs) = step(phone);
    let theirs = channel.theirs(1, AFTER_SAT, &htlcs);
    match whose {
        Whose::Peers => (channel, theirs.encode()),
        Whose::Owners => {
            phone.ask(sign(&theirs)).expect("an honest step");
            phone.ask(channel.revocation(0)).expect("an honest step");
            let ours = channel.holder(1, AFTER_SAT, &htlcs).encode();
            (channel, ours)
        }
    }
}

fn op(whose: Whose, commitment: Vec<u8>) -> Op {
    match whose {
        Whose::Owners => Op::ValidateHolderCommitment(ValidateHolderCommitment {
            commitment,
            outbound_preimages: Vec::new(),
        }),
        Whose::Peers => Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
            commitment,
            ..Default::default()
        }),
    }
}

/// Changes the fields of the commitment itself, which the owner's has inside of its own.
fn change(whose: Whose, encoded: &[u8], change: impl Fn(Fields) -> Fields) -> Vec<u8> {
    match whose {
        Whose::Peers => change(Fields::read(encoded)).write(),
        Whose::Owners => {
            let outer = Fields::read(encoded);
            let inner = change(Fields::read(outer.get(0))).write();
            outer.with(0, inner).write()
        }
    }
}

fn change_transaction(fields: Fields, change: impl Fn(&mut Transaction)) -> Fields {
    let built = Fields::read(fields.get(BUILT));
    let mut transaction: Transaction = decode(built.get(0));
    change(&mut transaction);
    let txid = encode(&transaction.compute_txid());
    let built = built.with(0, encode(&transaction)).with(2, txid);
    fields.with(BUILT, built.write())
}

fn thief() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&Hash::all_zeros())
}

pub(crate) fn thiefs_key() -> PublicKey {
    let secret = SecretKey::from_slice(&[1; 32]).expect("a key");
    secret.public_key(&Secp256k1::new())
}

type OnTransaction = (String, Box<dyn Fn(&mut Transaction) + Send + Sync>);

fn on_transaction() -> Vec<OnTransaction> {
    let mut all: Vec<OnTransaction> = Vec::new();
    let mut add = |name: String, change: Box<dyn Fn(&mut Transaction) + Send + Sync>| {
        all.push((name, change));
    };
    add("version 1".into(), Box::new(|tx| tx.version = Version::ONE));
    add("version 3".into(), Box::new(|tx| tx.version = Version(3)));
    add(
        "another lock time".into(),
        Box::new(|tx| {
            let next = tx.lock_time.to_consensus_u32() + 1;
            tx.lock_time = bitcoin::absolute::LockTime::from_consensus(next);
        }),
    );
    add(
        "another sequence".into(),
        Box::new(|tx| tx.input[0].sequence = Sequence(tx.input[0].sequence.0 ^ 1)),
    );
    add(
        "a final sequence".into(),
        Box::new(|tx| tx.input[0].sequence = Sequence::MAX),
    );
    add(
        "another funding output".into(),
        Box::new(|tx| tx.input[0].previous_output.vout ^= 1),
    );
    add(
        "another funding transaction".into(),
        Box::new(|tx| tx.input[0].previous_output.txid = Txid::from_byte_array([9; 32])),
    );
    add(
        "a script in the input".into(),
        Box::new(|tx| tx.input[0].script_sig = thief()),
    );
    add(
        "a second input".into(),
        Box::new(|tx| {
            tx.input.push(TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array([9; 32]), 0),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            });
        }),
    );
    add(
        "a further output".into(),
        Box::new(|tx| {
            tx.output.push(TxOut {
                value: Amount::from_sat(1_000),
                script_pubkey: thief(),
            });
        }),
    );
    add("no outputs".into(), Box::new(|tx| tx.output.clear()));
    for index in 0..OUTPUTS {
        add(
            format!("one satoshi more in output {index}"),
            Box::new(move |tx| tx.output[index].value += Amount::ONE_SAT),
        );
        add(
            format!("one satoshi less in output {index}"),
            Box::new(move |tx| tx.output[index].value -= Amount::ONE_SAT),
        );
        add(
            format!("another script in output {index}"),
            Box::new(move |tx| tx.output[index].script_pubkey = thief()),
        );
        add(
            format!("output {index} is missing"),
            Box::new(move |tx| {
                tx.output.remove(index);
            }),
        );
    }
    for index in 1..OUTPUTS {
        add(
            format!("outputs {} and {index} change places", index - 1),
            Box::new(move |tx| tx.output.swap(index - 1, index)),
        );
    }
    all
}

type OnFields = (String, Box<dyn Fn(Fields) -> Fields + Send + Sync>);

fn on_fields() -> Vec<OnFields> {
    let mut all: Vec<OnFields> = Vec::new();
    let mut add = |name: String, change: Box<dyn Fn(Fields) -> Fields + Send + Sync>| {
        all.push((name, change));
    };
    for (name, kind) in [
        ("its owner's", TO_BROADCASTER),
        ("the other's", TO_COUNTERSIGNATORY),
    ] {
        for (more, by) in [("more", 1), ("less", -1)] {
            add(
                format!("{name} balance is said to be one satoshi {more}"),
                Box::new(move |fields| {
                    let sat = u64::from_be_bytes(fields.get(kind).try_into().expect("a u64"));
                    let sat = sat.saturating_add_signed(by);
                    fields.with(kind, sat.encode())
                }),
            );
        }
    }
    let names = [
        "per-commitment point",
        "revocation key",
        "its owner's HTLC key",
        "the other's HTLC key",
        "delayed key",
    ];
    for (index, name) in names.iter().enumerate() {
        let kind = 2 * index as u64;
        add(
            format!("the {name} is the thief's"),
            Box::new(move |fields| {
                let keys = Fields::read(fields.get(KEYS));
                let keys = keys.with(kind, thiefs_key().encode());
                fields.with(KEYS, keys.write())
            }),
        );
        if index > 0 {
            add(
                format!("the {name} and the one before it change places"),
                Box::new(move |fields| {
                    let keys = Fields::read(fields.get(KEYS));
                    let (one, other) = (keys.get(kind).to_vec(), keys.get(kind - 2).to_vec());
                    let keys = keys.with(kind, other).with(kind - 2, one);
                    fields.with(KEYS, keys.write())
                }),
            );
        }
    }
    for (name, kind, bit) in [
        ("direction", 0, 1),
        ("amount", 2, 1),
        ("expiry", 4, 1),
        ("payment hash", 6, 1),
        ("output", 8, 1),
    ] {
        for index in 0..2 {
            add(
                format!("another {name} of HTLC {index}"),
                Box::new(move |fields| change_htlc(&fields, index, kind, bit)),
            );
        }
    }
    all
}

/// Changes the last byte of a field of an HTLC.
fn change_htlc(fields: &Fields, index: usize, kind: u64, bit: u8) -> Fields {
    let mut htlcs = fields.get(HTLCS);
    let mut written = Vec::new();
    let mut at = 0;
    while !htlcs.is_empty() {
        let one = Fields::read(htlcs);
        let length = one.write().len();
        let changed = match at == index {
            true => {
                let mut value = one.get(kind).to_vec();
                // An amount is in millisatoshis: its outputs have whole satoshis.
                let place = match kind {
                    2 => value.len() - 2,
                    _ => value.len() - 1,
                };
                value[place] ^= if kind == 2 { 4 * bit } else { bit };
                one.with(kind, value)
            }
            false => one,
        };
        written.extend(changed.write());
        htlcs = &htlcs[length..];
        at += 1;
    }
    fields.clone().with(HTLCS, written)
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(mismatches());
    all.extend(numbers());
    all.extend(signatures());
    all.extend(fees());
    all
}

fn mismatches() -> Vec<Case> {
    let mut cases = Cases::of(Rule::CommitmentMismatch);
    for whose in BOTH {
        cases.honest(
            format!("{whose:?} commitment with two HTLCs"),
            move |phone| {
                let (_, encoded) = next(phone, whose);
                op(whose, encoded)
            },
        );
        for (name, on) in on_transaction() {
            cases.attack(format!("{whose:?} commitment: {name}"), move |phone| {
                let (_, encoded) = next(phone, whose);
                let changed = change(whose, &encoded, |fields| change_transaction(fields, &on));
                op(whose, changed)
            });
        }
        for (name, on) in on_fields() {
            // The script of an HTLC has its expiry on the side that receives it; on the other its second stage has.
            let has_none = match whose {
                Whose::Owners => "another expiry of HTLC 1",
                Whose::Peers => "another expiry of HTLC 0",
            };
            if name == has_none {
                continue;
            }
            cases.attack(format!("{whose:?} commitment: {name}"), move |phone| {
                let (_, encoded) = next(phone, whose);
                op(whose, change(whose, &encoded, &on))
            });
        }
        cases.attack(
            format!("{whose:?} commitment with the other side's keys"),
            move |phone| {
                let (channel, htlcs) = step(phone);
                match whose {
                    Whose::Peers => sign(&channel.holder(1, AFTER_SAT, &htlcs)),
                    Whose::Owners => {
                        let theirs = channel.theirs(1, AFTER_SAT, &htlcs);
                        validate(&channel.signed(theirs))
                    }
                }
            },
        );
    }
    cases.all
}

fn numbers() -> Vec<Case> {
    let mut ours = Cases::of(Rule::HolderNumber);
    ours.honest("the next commitment of the owner", |phone| {
        let channel = Channel::open(phone);
        validate(&channel.holder(1, 400_000, &[]))
    });
    ours.honest("the latest one again", |phone| {
        let channel = Channel::open(phone);
        validate(&channel.holder(0, 400_000, &[]))
    });
    for step in [2, 3, 9] {
        ours.attack(format!("{} numbers are left out", step - 1), move |phone| {
            let channel = Channel::open(phone);
            validate(&channel.holder(step, 400_000, &[]))
        });
    }
    ours.attack("an earlier number", |phone| {
        let channel = Channel::open(phone);
        phone
            .ask(validate(&channel.holder(1, 400_000, &[])))
            .expect("an honest step");
        validate(&channel.holder(0, 400_000, &[]))
    });
    for (name, sat, htlcs) in others() {
        ours.attack(format!("the latest number with {name}"), move |phone| {
            let channel = Channel::open(phone);
            validate(&channel.holder(0, sat, &htlcs))
        });
    }
    ours.attack("the latest number with another fee rate", |phone| {
        let channel = Channel::open(phone);
        validate(&channel.holder_at(0, 900, 400_000, 590_000))
    });

    let mut theirs = Cases::of(Rule::CounterpartyNumber);
    theirs.honest("the next commitment of the peer", |phone| {
        let channel = Channel::open(phone);
        sign(&channel.theirs(1, 400_000, &[]))
    });
    theirs.honest("the latest one again", |phone| {
        let channel = Channel::open(phone);
        sign(&channel.theirs(0, 400_000, &[]))
    });
    for step in [2, 3, 9] {
        theirs.attack(format!("{} numbers are left out", step - 1), move |phone| {
            let channel = Channel::open(phone);
            sign(&channel.theirs(step, 400_000, &[]))
        });
    }
    for (name, sat, htlcs) in others() {
        let again = htlcs.clone();
        theirs.attack(format!("the latest number with {name}"), move |phone| {
            let channel = Channel::open(phone);
            sign(&channel.theirs(0, sat, &htlcs))
        });
        theirs.attack(format!("a revoked number with {name}"), move |phone| {
            let channel = Channel::open(phone);
            phone
                .ask(sign(&channel.theirs(1, 400_000, &[])))
                .expect("an honest step");
            phone.ask(channel.revocation(0)).expect("an honest step");
            sign(&channel.theirs(0, sat, &again))
        });
    }
    theirs.attack("a revoked commitment again", |phone| {
        let channel = Channel::open(phone);
        phone
            .ask(sign(&channel.theirs(1, 400_000, &[])))
            .expect("an honest step");
        phone.ask(channel.revocation(0)).expect("an honest step");
        sign(&channel.theirs(0, 400_000, &[]))
    });

    let mut third = Cases::of(Rule::CounterpartyUnrevoked);
    third.honest("a third commitment after a revocation", |phone| {
        let channel = Channel::open(phone);
        phone
            .ask(sign(&channel.theirs(1, 400_000, &[])))
            .expect("an honest step");
        phone.ask(channel.revocation(0)).expect("an honest step");
        sign(&channel.theirs(2, 400_000, &[]))
    });
    for (name, htlcs) in [
        ("a third commitment", vec![]),
        (
            "a third commitment with an HTLC",
            vec![Htlc::incoming([7; 32], 40_000_000)],
        ),
    ] {
        third.attack(name, move |phone| {
            let channel = Channel::open(phone);
            phone
                .ask(sign(&channel.theirs(1, 400_000, &[])))
                .expect("an honest step");
            sign(&channel.theirs(2, 400_000, &htlcs))
        });
    }
    let mut unrevoked = Cases::of(Rule::HolderUnrevoked);
    unrevoked.honest(
        "the owner's next commitment when the one before is revoked",
        |phone| {
            let channel = Channel::open(phone);
            for op in [validate(&channel.holder(1, 400_000, &[])), release(0)] {
                phone.ask(op).expect("an honest step");
            }
            validate(&channel.holder(2, 400_000, &[]))
        },
    );
    for (name, htlcs) in [
        ("a third commitment of the owner's", vec![]),
        (
            "a third commitment of the owner's with an HTLC",
            vec![Htlc::incoming([7; 32], 40_000_000)],
        ),
    ] {
        unrevoked.attack(name, move |phone| {
            let channel = Channel::open(phone);
            let next = validate(&channel.holder(1, 400_000, &[]));
            phone.ask(next).expect("an honest step");
            validate(&channel.holder(2, 400_000, &htlcs))
        });
    }
    let mut early = Cases::of(Rule::HtlcRemovedEarly);
    early.honest(
        "an HTLC leaves the peer's commitment after the owner's",
        |phone| {
            let channel = super::balance::paying(phone);
            for op in [validate(&channel.holder(2, 400_000, &[])), release(1)] {
                phone.ask(op).expect("an honest step");
            }
            sign(&channel.theirs(2, 400_000, &[]))
        },
    );
    for (name, sat) in [
        ("and comes back", 400_000),
        ("for more than it was", 450_000),
    ] {
        early.attack(
            format!("an HTLC leaves the peer's commitment first, {name}"),
            move |phone| {
                let channel = super::balance::paying(phone);
                sign(&channel.theirs(2, sat, &[]))
            },
        );
    }
    let mut all = ours.all;
    all.extend(unrevoked.all);
    all.extend(early.all);
    all.extend(theirs.all);
    all.extend(third.all);
    all
}

/// Other contents of a first commitment.
fn others() -> Vec<(&'static str, u64, Vec<Htlc>)> {
    vec![
        ("one satoshi more", 400_001, vec![]),
        ("one satoshi less", 399_999, vec![]),
        ("nothing for the owner", 0, vec![]),
        (
            "an incoming HTLC",
            400_000,
            vec![Htlc::incoming([7; 32], 40_000_000)],
        ),
        (
            "an outgoing HTLC",
            350_000,
            vec![Htlc::outgoing([7; 32], 50_000_000)],
        ),
    ]
}

fn signatures() -> Vec<Case> {
    let mut cases = Cases::of(Rule::HolderSignature);
    cases.honest("a commitment with the peer's signatures", |phone| {
        let (_, encoded) = next(phone, Whose::Owners);
        op(Whose::Owners, encoded)
    });
    let mut attack = |name: &str, change: fn(&Channel, Fields) -> Fields| {
        cases.attack(name, move |phone| {
            let (channel, encoded) = next(phone, Whose::Owners);
            let changed = change(&channel, Fields::read(&encoded));
            op(Whose::Owners, changed.write())
        });
    };
    attack(
        "the signature of the commitment before",
        |channel, fields| {
            let other = channel.holder(0, 400_000, &[]);
            fields.with(2, other.counterparty_sig.encode())
        },
    );
    attack(
        "the signature of a commitment that pays one satoshi more",
        |channel, fields| {
            let htlcs = [
                Htlc::outgoing(PAID, PAID_MSAT),
                Htlc::incoming([7; 32], 40_000_000),
            ];
            let other = channel.holder(1, AFTER_SAT + 1, &htlcs);
            fields.with(2, other.counterparty_sig.encode())
        },
    );
    attack("a signature of the HTLC transactions", |_, fields| {
        let htlcs = fields.get(6).to_vec();
        fields.with(2, htlcs[..64].to_vec())
    });
    attack("no HTLC signatures", |_, fields| fields.with(6, Vec::new()));
    attack("one HTLC signature is missing", |_, fields| {
        let htlcs = fields.get(6)[..64].to_vec();
        fields.with(6, htlcs)
    });
    attack("one HTLC signature too many", |_, fields| {
        let mut htlcs = fields.get(6).to_vec();
        htlcs.extend_from_within(..64);
        fields.with(6, htlcs)
    });
    attack("the HTLC signatures change places", |_, fields| {
        let htlcs = fields.get(6);
        let swapped = [&htlcs[64..], &htlcs[..64]].concat();
        fields.with(6, swapped)
    });
    attack("one HTLC signature twice", |_, fields| {
        let htlcs = fields.get(6);
        let twice = [&htlcs[..64], &htlcs[..64]].concat();
        fields.with(6, twice)
    });
    attack("the commitment's signature for an HTLC", |_, fields| {
        let htlcs = [fields.get(2), &fields.get(6)[64..]].concat();
        fields.with(6, htlcs)
    });
    cases.all
}

fn fees() -> Vec<Case> {
    let mut cases = Cases::of(Rule::CommitmentFee);
    for (feerate, is_good) in [
        (250, true),
        (250_000, true),
        (0, false),
        (249, false),
        (250_001, false),
    ] {
        for whose in BOTH {
            let name = format!("{whose:?} commitment at {feerate} sat/kw, paid by the peer");
            let play = move |phone: &mut Phone| {
                let channel = Channel::open(phone);
                match whose {
                    Whose::Owners => validate(&channel.holder_at(1, feerate, 400_000, 100_000)),
                    Whose::Peers => sign(&channel.theirs_at(1, feerate, 400_000, 100_000)),
                }
            };
            match is_good {
                true => cases.honest(name, play),
                false => cases.attack(name, play),
            }
        }
    }
    for (feerate, is_good) in [(25_000, true), (25_001, false), (100_000, false)] {
        for whose in BOTH {
            let name = format!("{whose:?} commitment at {feerate} sat/kw, paid by the owner");
            let play = move |phone: &mut Phone| {
                let channel = Channel::outbound(phone);
                phone.ask(channel.setup()).expect("an honest step");
                let sat = VALUE_SAT - 660 - u64::from(feerate) * 1_124 / 1_000;
                match whose {
                    Whose::Owners => validate(&channel.holder_at(0, feerate, sat, 0)),
                    Whose::Peers => sign(&channel.theirs_at(0, feerate, sat, 0)),
                }
            };
            match is_good {
                true => cases.honest(name, play),
                false => cases.attack(name, play),
            }
        }
    }
    cases.all
}
