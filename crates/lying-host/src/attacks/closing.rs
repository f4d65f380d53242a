//! Closes of channels, and what follows on chain (BOLT 5).

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, HTLCOutputInCommitment, HolderCommitmentTransaction,
    build_htlc_transaction, get_countersigner_payment_script,
};
use lightning::sign::{
    ChannelDerivationParameters, ChannelSigner, HTLCDescriptor, SpendableOutputDescriptor,
    StaticPaymentOutputDescriptor,
};
use lightning::util::ser::Writeable;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{
    SignClosing, SignCounterpartyHtlc, SignHolderHtlc, SignJustice, SpendOutputs,
};
use longhand_signer::{Keychain, Rule};

use crate::scene::*;
use crate::tlv::encode;
use crate::{Case, Cases};

pub(crate) fn thief() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&Hash::all_zeros())
}

pub(crate) fn own_script(phone: &Phone, index: u32) -> ScriptBuf {
    let script = phone.signer.own_script(Keychain::External, index);
    script.expect("an address")
}

pub(crate) fn outpoint(byte: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([byte; 32]), 1)
}

pub(crate) fn paying(inputs: &[OutPoint], outputs: Vec<(u64, ScriptBuf)>) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let output = |(sat, script_pubkey)| TxOut {
        value: Amount::from_sat(sat),
        script_pubkey,
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.into_iter().map(output).collect(),
    }
}

pub(crate) fn close(phone: &Phone, to_holder_sat: u64, to_counterparty_sat: u64) -> SignClosing {
    SignClosing {
        to_holder_sat,
        to_counterparty_sat,
        to_holder_script: own_script(phone, 3).to_bytes(),
        to_counterparty_script: thief().to_bytes(),
        funding_outpoint: encode(&phone.funding),
        to_holder_keychain: 0,
        to_holder_index: 3,
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = closes();
    all.extend(broadcasts());
    all.extend(holder_htlcs());
    all.extend(claims());
    all.extend(justices());
    all.extend(sweeps());
    all
}

fn closes() -> Vec<Case> {
    let mut scripts = Cases::of(Rule::NotOurScript);
    scripts.honest("a close to the owner's wallet", |phone| {
        Channel::open(phone);
        Op::SignClosing(close(phone, 400_000, 500_000))
    });
    scripts.honest("a close to an address that the owner named", |phone| {
        let channel = Channel::open(phone);
        intend_close(phone, &channel.id().0);
        Op::SignClosing(SignClosing {
            to_holder_script: thief().to_bytes(),
            ..close(phone, 400_000, 500_000)
        })
    });
    for (name, script) in [
        ("the thief", thief()),
        ("nobody", ScriptBuf::new()),
        (
            "a witness program of the future",
            ScriptBuf::from_bytes([&[0x52, 32][..], &[9; 32]].concat()),
        ),
    ] {
        scripts.attack(format!("a close to {name}"), move |phone| {
            Channel::open(phone);
            Op::SignClosing(SignClosing {
                to_holder_script: script.to_bytes(),
                ..close(phone, 400_000, 500_000)
            })
        });
    }
    scripts.attack(
        "a close to an address that the owner named for another channel",
        |phone| {
            Channel::open(phone);
            intend_close(phone, &[9; 32]);
            Op::SignClosing(SignClosing {
                to_holder_script: thief().to_bytes(),
                ..close(phone, 400_000, 500_000)
            })
        },
    );
    for (byte, at) in [(0x01, 0), (0x80, 5), (0x01, 21)] {
        scripts.attack(
            format!("a close to the owner's script with byte {at} changed"),
            move |phone| {
                Channel::open(phone);
                let mut script = own_script(phone, 3).to_bytes();
                script[at] ^= byte;
                Op::SignClosing(SignClosing {
                    to_holder_script: script,
                    ..close(phone, 400_000, 500_000)
                })
            },
        );
    }

    let mut balances = Cases::of(Rule::CloseBalance);
    balances.honest("a close of the whole balance", |phone| {
        Channel::open(phone);
        Op::SignClosing(close(phone, 400_000, 500_000))
    });
    balances.honest("a close by the funder, who pays a fee", |phone| {
        funded(phone);
        Op::SignClosing(close(phone, FUNDER_SAT - 5_000, 0))
    });
    for less in [1, 354, 1_000, 50_000, 399_000, 400_000] {
        balances.attack(
            format!("a close of a channel that the peer funded, {less} sat less"),
            move |phone| {
                Channel::open(phone);
                Op::SignClosing(close(phone, 400_000 - less, 500_000 + less))
            },
        );
    }
    for fee in [100_001, 200_000, 500_000, VALUE_SAT] {
        balances.attack(
            format!("a close by the funder at {fee} sat"),
            move |phone| {
                funded(phone);
                Op::SignClosing(close(phone, VALUE_SAT - fee, 0))
            },
        );
    }
    for given in [1, 5_000, 50_000, 100_001, 200_000, 500_000, VALUE_SAT] {
        balances.attack(
            format!("a close by the funder, {given} sat for the peer"),
            move |phone| {
                funded(phone);
                Op::SignClosing(close(phone, VALUE_SAT - given, given))
            },
        );
    }
    for (name, is_incoming) in [("incoming", true), ("outgoing", false)] {
        balances.attack(
            format!("a close with an {name} HTLC in the channel"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend([7; 32], 40_000_000);
                let htlc = Htlc {
                    incoming: is_incoming,
                    ..Htlc::incoming([7; 32], 40_000_000)
                };
                let sat = if is_incoming { 400_000 } else { 360_000 };
                phone
                    .ask(sign(&channel.theirs(1, sat, &[htlc])))
                    .expect("an honest step");
                Op::SignClosing(close(phone, 400_000, 500_000))
            },
        );
    }

    let mut closing = Cases::of(Rule::ChannelClosing);
    closing.honest("the same close again", |phone| {
        Channel::open(phone);
        let op = Op::SignClosing(close(phone, 400_000, 500_000));
        phone.ask(op.clone()).expect("an honest step");
        op
    });
    closing.honest("a close at another fee", |phone| {
        funded(phone);
        let op = Op::SignClosing(close(phone, FUNDER_SAT - 5_000, 0));
        phone.ask(op).expect("an honest step");
        Op::SignClosing(close(phone, FUNDER_SAT - 6_000, 0))
    });
    type Next = fn(&Channel) -> Op;
    for (name, next) in [
        (
            "a commitment of the owner",
            (|it| validate(&it.holder(1, 400_000, &[]))) as Next,
        ),
        ("a commitment of the peer", |it| {
            sign(&it.theirs(1, 400_000, &[]))
        }),
        ("a commitment of the owner with an HTLC", |it| {
            validate(&it.holder(1, 400_000, &[Htlc::incoming([7; 32], 40_000_000)]))
        }),
        ("a commitment of the peer with an HTLC", |it| {
            sign(&it.theirs(1, 400_000, &[Htlc::incoming([7; 32], 40_000_000)]))
        }),
    ] {
        closing.attack(format!("{name} after the close was signed"), move |phone| {
            let channel = Channel::open(phone);
            let op = Op::SignClosing(close(phone, 400_000, 500_000));
            phone.ask(op).expect("an honest step");
            next(&channel)
        });
    }
    let mut all = scripts.all;
    all.extend(balances.all);
    all.extend(closing.all);
    all
}

fn intend_close(phone: &mut Phone, channel_id: &[u8]) {
    let address = Address::from_script(&thief(), Network::Regtest).expect("an address");
    phone.intend_close(channel_id, false, &address.to_string());
}

/// A channel that the owner has funded.
fn funded(phone: &mut Phone) -> Channel {
    let channel = Channel::outbound(phone);
    for op in [
        channel.setup(),
        sign(&channel.theirs_at(0, 1_000, FUNDER_SAT, 0)),
        validate(&channel.holder_at(0, 1_000, FUNDER_SAT, 0)),
    ] {
        phone.ask(op).expect("an honest step");
    }
    channel
}

fn broadcasts() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SignRevoked);
    cases.honest("the latest commitment for broadcast", |phone| {
        let channel = Channel::open(phone);
        phone.intend_force(&channel);
        sign_holder(&channel.holder(0, 400_000, &[]))
    });
    for (name, step, sat) in [
        ("a commitment that the phone has not seen", 1, 400_000),
        ("one far ahead", 9, 400_000),
        ("the latest number with one satoshi less", 0, 399_999),
        ("the latest number with nothing for the owner", 0, 0),
    ] {
        cases.attack(name, move |phone| {
            sign_holder(&Channel::open(phone).holder(step, sat, &[]))
        });
    }
    for later in 1..4 {
        cases.attack(
            format!("a commitment that was revoked {later} updates ago"),
            move |phone| {
                let channel = Channel::open(phone);
                for step in 1..=later {
                    for op in [
                        validate(&channel.holder(step, 400_000 + step, &[])),
                        release(step - 1),
                    ] {
                        phone.ask(op).expect("an honest step");
                    }
                }
                sign_holder(&channel.holder(0, 400_000, &[]))
            },
        );
    }
    cases.all
}

/// The owner's commitment with an HTLC, and the transaction that claims it.
pub(super) fn holder_htlc(
    phone: &mut Phone,
    channel: &Channel,
) -> (HolderCommitmentTransaction, Transaction, HTLCDescriptor) {
    let commitment = channel.holder(1, 400_000, &[Htlc::incoming([7; 32], 40_000_000)]);
    phone.ask(validate(&commitment)).expect("an honest step");
    let htlc = &commitment.nondust_htlcs()[0];
    let transaction = second_stage(&channel.parameters, &commitment, htlc);
    let descriptor = HTLCDescriptor {
        channel_derivation_parameters: ChannelDerivationParameters {
            value_satoshis: VALUE_SAT,
            keys_id: KEYS_ID,
            transaction_parameters: channel.parameters.clone(),
        },
        commitment_txid: commitment.trust().txid(),
        per_commitment_number: FIRST - 1,
        per_commitment_point: channel.phone_points[1],
        feerate_per_kw: 0,
        htlc: htlc.clone(),
        preimage: None,
        counterparty_sig: commitment.counterparty_htlc_sigs[0],
    };
    (commitment, transaction, descriptor)
}

/// The same, when the owner's commitment was signed for broadcast.
fn broadcast_htlc(phone: &mut Phone, channel: &Channel) -> (Transaction, HTLCDescriptor) {
    let (commitment, transaction, descriptor) = holder_htlc(phone, channel);
    phone.intend_force(channel);
    phone.ask(sign_holder(&commitment)).expect("an honest step");
    (transaction, descriptor)
}

fn second_stage(
    parameters: &ChannelTransactionParameters,
    commitment: &HolderCommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> Transaction {
    let trusted = commitment.trust();
    build_htlc_transaction(
        &trusted.txid(),
        0,
        288,
        htlc,
        &parameters.channel_type_features,
        &trusted.keys().broadcaster_delayed_payment_key,
        &trusted.keys().revocation_key,
    )
}

fn holder_htlcs() -> Vec<Case> {
    let mut cases = Cases::of(Rule::NotOurOutput);
    let op = |transaction: &Transaction, descriptor: &HTLCDescriptor| {
        Op::SignHolderHtlc(SignHolderHtlc {
            transaction: encode(transaction),
            input: 0,
            descriptor: descriptor.encode(),
        })
    };
    cases.honest("an HTLC of the owner's commitment", move |phone| {
        let channel = Channel::open(phone);
        let (transaction, descriptor) = broadcast_htlc(phone, &channel);
        op(&transaction, &descriptor)
    });
    type OnTransaction = fn(&mut Transaction);
    for (name, change) in [
        (
            "to the thief",
            (|tx| tx.output[0].script_pubkey = thief()) as OnTransaction,
        ),
        ("of one satoshi less", |tx| {
            tx.output[0].value -= Amount::ONE_SAT
        }),
        ("of one satoshi more", |tx| {
            tx.output[0].value += Amount::ONE_SAT
        }),
        ("without an output", |tx| tx.output.clear()),
        ("from another output", |tx| {
            tx.input[0].previous_output.vout ^= 1
        }),
        ("from another transaction", |tx| {
            tx.input[0].previous_output = outpoint(9)
        }),
        ("with another output before its own", |tx| {
            tx.output.insert(
                0,
                TxOut {
                    value: Amount::ONE_SAT,
                    script_pubkey: thief(),
                },
            );
        }),
    ] {
        cases.attack(format!("an HTLC of the owner's {name}"), move |phone| {
            let channel = Channel::open(phone);
            let (mut transaction, descriptor) = broadcast_htlc(phone, &channel);
            change(&mut transaction);
            op(&transaction, &descriptor)
        });
    }
    type OnDescriptor = fn(&mut HTLCDescriptor);
    for (name, change) in [
        (
            "another delay",
            (|it| {
                let parameters = &mut it.channel_derivation_parameters.transaction_parameters;
                parameters.holder_selected_contest_delay += 1;
            }) as OnDescriptor,
        ),
        ("another channel", |it| {
            it.channel_derivation_parameters.keys_id = [1; 32]
        }),
    ] {
        cases.attack(format!("an HTLC of {name}"), move |phone| {
            let channel = Channel::open(phone);
            let (transaction, mut descriptor) = broadcast_htlc(phone, &channel);
            change(&mut descriptor);
            op(&transaction, &descriptor)
        });
    }
    let mut revoked = Cases::of(Rule::SignRevoked);
    for (name, change) in [
        (
            "a commitment of another number",
            (|it| it.per_commitment_number -= 1) as OnDescriptor,
        ),
        ("another commitment", |it| {
            it.commitment_txid = Txid::from_byte_array([9; 32])
        }),
        ("another amount", |it| it.htlc.amount_msat += 1_000),
        ("another hash", |it| it.htlc.payment_hash.0[0] ^= 1),
        ("another expiry", |it| it.htlc.cltv_expiry += 1),
        ("the other direction", |it| it.htlc.offered ^= true),
    ] {
        revoked.attack(format!("an HTLC of {name}"), move |phone| {
            let channel = Channel::open(phone);
            let (transaction, mut descriptor) = broadcast_htlc(phone, &channel);
            change(&mut descriptor);
            op(&transaction, &descriptor)
        });
    }
    let mut all = cases.all;
    all.extend(revoked.all);
    all
}

/// A claim of an HTLC on the peer's commitment: `paid`, the owner's own, or one that the owner received.
pub(crate) fn claim(
    phone: &mut Phone,
    channel: &Channel,
    is_own: bool,
) -> (Transaction, SignCounterpartyHtlc) {
    let (paid, received) = (
        Htlc::outgoing([6; 32], 50_000_000),
        Htlc::incoming([7; 32], 40_000_000),
    );
    phone.intend([6; 32], 50_000_000);
    let theirs = channel.theirs(1, 350_000, &[paid, received]);
    phone.ask(sign(&theirs)).expect("an honest step");
    let mut htlcs = theirs.nondust_htlcs().iter();
    let htlc = htlcs
        .find(|htlc| htlc.offered != is_own)
        .expect("both are there");
    let vout = htlc.transaction_output_index.expect("it has an output");
    let spent = OutPoint::new(theirs.trust().txid(), vout);
    let transaction = Transaction {
        lock_time: LockTime::from_consensus(htlc.cltv_expiry),
        ..paying(&[spent], vec![(39_000, own_script(phone, 9))])
    };
    let op = SignCounterpartyHtlc {
        transaction: encode(&transaction),
        input: 0,
        amount_sat: htlc.amount_msat / 1_000,
        per_commitment_point: theirs.per_commitment_point().serialize().to_vec(),
        htlc: htlc.encode(),
        keychain: 0,
        index: 9,
    };
    (transaction, op)
}

/// Adds the other outputs of the commitment: two anchors, two balances and two HTLCs.
fn claim_every_output(transaction: &mut Transaction) {
    let first = transaction.input[0].clone();
    let others = (0..6).filter(|vout| *vout != first.previous_output.vout);
    transaction.input.extend(others.map(|vout| {
        let previous_output = OutPoint {
            vout,
            ..first.previous_output
        };
        TxIn {
            previous_output,
            ..first.clone()
        }
    }));
}

fn claims() -> Vec<Case> {
    let mut outputs = Cases::of(Rule::NotOurOutput);
    let mut scripts = Cases::of(Rule::NotOurScript);
    let mut fees = Cases::of(Rule::CloseFee);
    for is_own in [true, false] {
        let which = if is_own {
            "an expired HTLC of the owner's"
        } else {
            "an HTLC that the owner received"
        };
        outputs.honest(format!("{which}, on the peer's commitment"), move |phone| {
            let channel = Channel::open(phone);
            Op::SignCounterpartyHtlc(claim(phone, &channel, is_own).1)
        });
        fees.honest(format!("{which}, for a fee"), move |phone| {
            let channel = Channel::open(phone);
            Op::SignCounterpartyHtlc(claim(phone, &channel, is_own).1)
        });
        let aggregated = move |phone: &mut Phone, paid_sat: u64| {
            let channel = Channel::open(phone);
            let (mut transaction, op) = claim(phone, &channel, is_own);
            claim_every_output(&mut transaction);
            transaction.output[0].value = Amount::from_sat(paid_sat);
            Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
                transaction: encode(&transaction),
                ..op
            })
        };
        fees.honest(format!("{which}, with all else"), move |phone| {
            aggregated(phone, 900_000)
        });
        for paid_sat in [0, 39_000, 350_000] {
            fees.attack(
                format!("{which}, with all else, for {paid_sat} sat"),
                move |phone| aggregated(phone, paid_sat),
            );
        }
        type OnTransaction = fn(&mut Transaction);
        let mut tx_case = |rule: Rule, name: &str, change: OnTransaction| {
            let play = move |phone: &mut Phone| {
                let channel = Channel::open(phone);
                let (mut transaction, op) = claim(phone, &channel, is_own);
                change(&mut transaction);
                Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
                    transaction: encode(&transaction),
                    ..op
                })
            };
            let name = format!("{which}: {name}");
            match rule {
                Rule::NotOurOutput => outputs.attack(name, play),
                _ => scripts.attack(name, play),
            }
        };
        tx_case(Rule::NotOurOutput, "another output is spent", |tx| {
            tx.input[0].previous_output.vout ^= 1
        });
        tx_case(Rule::NotOurOutput, "another transaction is spent", |tx| {
            tx.input[0].previous_output = outpoint(9)
        });
        tx_case(Rule::NotOurScript, "to the thief", |tx| {
            tx.output[0].script_pubkey = thief()
        });
        tx_case(Rule::NotOurScript, "partly to the thief", |tx| {
            tx.output.push(TxOut {
                value: Amount::from_sat(500),
                script_pubkey: thief(),
            });
        });
        tx_case(Rule::NotOurScript, "to nobody", |tx| tx.output.clear());
        type OnOp = fn(&mut SignCounterpartyHtlc);
        for (name, change) in [
            ("one satoshi more", (|op| op.amount_sat += 1) as OnOp),
            ("one satoshi less", |op| op.amount_sat -= 1),
        ] {
            outputs.attack(format!("{which}: {name}"), move |phone| {
                let channel = Channel::open(phone);
                let (_, mut op) = claim(phone, &channel, is_own);
                change(&mut op);
                Op::SignCounterpartyHtlc(op)
            });
        }
        for step in [0, 2, 3] {
            outputs.attack(
                format!("{which}: the point of commitment {step}"),
                move |phone| {
                    let channel = Channel::open(phone);
                    let (_, op) = claim(phone, &channel, is_own);
                    let point = channel
                        .peer
                        .get_per_commitment_point(FIRST - step, &channel.secp);
                    Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
                        per_commitment_point: point.expect("a point").serialize().to_vec(),
                        ..op
                    })
                },
            );
        }
        outputs.attack(
            format!("{which}: the commitment is revoked"),
            move |phone| {
                let channel = Channel::open(phone);
                let (_, op) = claim(phone, &channel, is_own);
                let htlcs = [
                    Htlc::outgoing([6; 32], 50_000_000),
                    Htlc::incoming([7; 32], 40_000_000),
                ];
                for step in [
                    channel.revocation(0),
                    sign(&channel.theirs(2, 350_000, &htlcs)),
                    channel.revocation(1),
                ] {
                    phone.ask(step).expect("an honest step");
                }
                Op::SignCounterpartyHtlc(op)
            },
        );
    }
    type OnTransaction = fn(&mut Transaction);
    for (name, change) in [
        (
            "a block before it expires",
            (|tx| tx.lock_time = LockTime::from_consensus(499)) as OnTransaction,
        ),
        ("at once", |tx| tx.lock_time = LockTime::ZERO),
        ("by time in place of height", |tx| {
            tx.lock_time = LockTime::from_consensus(500_000_000)
        }),
        ("with the lock time disabled", |tx| {
            tx.input[0].sequence = Sequence::MAX
        }),
    ] {
        outputs.attack(
            format!("the owner's HTLC is taken back {name}"),
            move |phone| {
                let channel = Channel::open(phone);
                let (mut transaction, op) = claim(phone, &channel, true);
                change(&mut transaction);
                Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
                    transaction: encode(&transaction),
                    ..op
                })
            },
        );
    }
    let mut all = outputs.all;
    all.extend(scripts.all);
    all.extend(fees.all);
    all
}

pub(crate) fn justice(
    channel: &Channel,
    step: u64,
    value_sat: u64,
    outputs: Vec<(u64, ScriptBuf)>,
) -> Op {
    let secret = channel.peer.release_commitment_secret(FIRST - step);
    Op::SignJustice(SignJustice {
        transaction: encode(&paying(&[outpoint(1)], outputs)),
        input: 0,
        amount_sat: value_sat,
        per_commitment_secret: secret.expect("a secret").to_vec(),
        htlc: Vec::new(),
        keychain: 0,
        index: 9,
    })
}

/// The peer has revoked its first commitment.
fn revoked(phone: &mut Phone) -> Channel {
    let channel = Channel::open(phone);
    for op in [
        sign(&channel.theirs(1, 400_000, &[])),
        channel.revocation(0),
    ] {
        phone.ask(op).expect("an honest step");
    }
    channel
}

fn justices() -> Vec<Case> {
    let mut secrets = Cases::of(Rule::JusticeUnrevoked);
    let mut scripts = Cases::of(Rule::NotOurScript);
    let mut fees = Cases::of(Rule::CloseFee);
    secrets.honest("justice for a revoked commitment", |phone| {
        let channel = revoked(phone);
        let to = vec![(8_000, own_script(phone, 9))];
        justice(&channel, 0, 9_000, to)
    });
    for (name, step) in [
        ("the commitment in force", 1),
        ("the next one", 2),
        ("one far ahead", 9),
        ("one at the end", 1_000),
    ] {
        secrets.attack(format!("justice for {name}"), move |phone| {
            let channel = revoked(phone);
            let to = vec![(8_000, own_script(phone, 9))];
            justice(&channel, step, 9_000, to)
        });
    }
    secrets.attack("justice before anything is revoked", |phone| {
        let channel = Channel::open(phone);
        let to = vec![(8_000, own_script(phone, 9))];
        justice(&channel, 0, 9_000, to)
    });
    secrets.attack("justice while the revocation is due", |phone| {
        let channel = Channel::open(phone);
        phone
            .ask(sign(&channel.theirs(1, 400_000, &[])))
            .expect("an honest step");
        let to = vec![(8_000, own_script(phone, 9))];
        justice(&channel, 0, 9_000, to)
    });
    type Outputs = fn(&Phone) -> Vec<(u64, ScriptBuf)>;
    for (name, outputs) in [
        ("to the thief", (|_| vec![(8_000, thief())]) as Outputs),
        ("partly to the thief", |phone| {
            vec![(4_000, own_script(phone, 9)), (4_000, thief())]
        }),
        ("to the thief first", |phone| {
            vec![(4_000, thief()), (4_000, own_script(phone, 9))]
        }),
        ("to nobody", |_| Vec::new()),
    ] {
        scripts.attack(format!("justice {name}"), move |phone| {
            let channel = revoked(phone);
            justice(&channel, 0, 9_000, outputs(phone))
        });
    }
    for (value, paid) in [
        (100_000, 49_999),
        (100_000, 0),
        (1_000_000, 899_999),
        (1_000_000, 1),
    ] {
        fees.attack(
            format!("justice of {value} sat that pays {paid}"),
            move |phone| {
                let channel = revoked(phone);
                let to = vec![(paid, own_script(phone, 9))];
                justice(&channel, 0, value, to)
            },
        );
    }
    fees.honest("justice at the limit of its fee", |phone| {
        let channel = revoked(phone);
        let to = vec![(900_000, own_script(phone, 9))];
        justice(&channel, 0, 1_000_000, to)
    });

    let mut points = Cases::of(Rule::CounterpartyNumber);
    points.attack(
        "a commitment with the point for which justice was signed",
        |phone| {
            let channel = revoked(phone);
            let to = vec![(8_000, own_script(phone, 9))];
            let op = justice(&channel, 0, 9_000, to);
            phone.ask(op).expect("an honest step");
            let first = channel.theirs(0, 400_000, &[]);
            let again = lightning::ln::chan_utils::CommitmentTransaction::new(
                FIRST - 2,
                &first.per_commitment_point(),
                590_000,
                400_000,
                1_000,
                Vec::new(),
                &channel.parameters.as_counterparty_broadcastable(),
                &channel.secp,
            );
            sign(&again)
        },
    );
    let mut all = secrets.all;
    all.extend(scripts.all);
    all.extend(fees.all);
    all.extend(points.all);
    all
}

/// The owner's balance on the peer's commitment.
fn left(channel: &Channel) -> SpendableOutputDescriptor {
    let ours = &channel.parameters.holder_pubkeys;
    let features = &channel.parameters.channel_type_features;
    let script = get_countersigner_payment_script(features, &ours.payment_point);
    SpendableOutputDescriptor::StaticPaymentOutput(StaticPaymentOutputDescriptor {
        outpoint: lightning::chain::transaction::OutPoint {
            txid: Txid::from_byte_array([1; 32]),
            index: 0,
        },
        output: TxOut {
            value: Amount::from_sat(300_000),
            script_pubkey: script,
        },
        channel_keys_id: KEYS_ID,
        channel_value_satoshis: VALUE_SAT,
        channel_transaction_parameters: Some(channel.parameters.clone()),
    })
}

fn sweep(phone: &Phone, descriptor: &SpendableOutputDescriptor) -> SpendOutputs {
    SpendOutputs {
        descriptors: vec![descriptor.encode()],
        change_script: own_script(phone, 9).to_bytes(),
        change_keychain: 0,
        change_index: 9,
        feerate_sat_per_kw: 1_000,
        locktime: 7,
    }
}

fn sweeps() -> Vec<Case> {
    let mut outputs = Cases::of(Rule::NotOurOutput);
    outputs.honest("a sweep of the owner's balance", |phone| {
        let channel = Channel::open(phone);
        Op::SpendOutputs(sweep(phone, &left(&channel)))
    });
    type OnDescriptor = fn(&mut StaticPaymentOutputDescriptor);
    for (name, change) in [
        (
            "somebody else's output",
            (|it| it.output.script_pubkey = thief()) as OnDescriptor,
        ),
        ("an output of another channel", |it| {
            it.channel_keys_id = [1; 32]
        }),
        ("an output that does not pay its fee", |it| {
            it.output.value = Amount::from_sat(100)
        }),
    ] {
        outputs.attack(format!("a sweep of {name}"), move |phone| {
            let channel = Channel::open(phone);
            let SpendableOutputDescriptor::StaticPaymentOutput(mut descriptor) = left(&channel)
            else {
                unreachable!("it is the balance")
            };
            change(&mut descriptor);
            Op::SpendOutputs(sweep(
                phone,
                &SpendableOutputDescriptor::StaticPaymentOutput(descriptor),
            ))
        });
    }
    let mut scripts = Cases::of(Rule::NotOurScript);
    type OnOp = fn(&mut SpendOutputs);
    for (name, change) in [
        (
            "to the thief",
            (|op| op.change_script = thief().to_bytes()) as OnOp,
        ),
        ("to another index", |op| op.change_index = 10),
        ("to the other keychain", |op| op.change_keychain = 1),
        ("to no keychain", |op| op.change_keychain = 2),
        ("to an index that nobody finds", |op| {
            op.change_index = 1 << 20
        }),
    ] {
        scripts.attack(format!("a sweep {name}"), move |phone| {
            let channel = Channel::open(phone);
            let mut op = sweep(phone, &left(&channel));
            change(&mut op);
            Op::SpendOutputs(op)
        });
    }
    let mut fees = Cases::of(Rule::CloseFee);
    for feerate in [200_000, 400_000] {
        fees.attack(format!("a sweep at {feerate} sat/kw"), move |phone| {
            let channel = Channel::open(phone);
            Op::SpendOutputs(SpendOutputs {
                feerate_sat_per_kw: feerate,
                ..sweep(phone, &left(&channel))
            })
        });
    }
    let mut all = outputs.all;
    all.extend(scripts.all);
    all.extend(fees.all);
    all
}
