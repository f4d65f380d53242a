//! Transactions of the on-chain wallet, and spending.

use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::psbt::{Output, Psbt};
use bitcoin::{Address, Amount, EcdsaSighashType, Network, OutPoint, TxOut};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, CommitmentTransaction, get_keyed_anchor_redeemscript,
    make_funding_redeemscript,
};
use lightning::types::features::ChannelTypeFeatures;
use longhand_proto::signer::SignPsbt;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_op::Op;
use longhand_signer::{Account, Keychain, Rule};

use super::closing::{outpoint, paying, thief};
use super::commitment::thiefs_key;
use super::incoming::verdict;
use crate::scene::*;
use crate::{Case, Cases};

/// The fingerprint of the phone's master key.
const MASTER: [u8; 4] = [0x73, 0xc5, 0xda, 0x0a];
const COIN_SAT: u64 = 2_000_000;

fn source(path: &str) -> (Fingerprint, DerivationPath) {
    (Fingerprint::from(MASTER), path.parse().expect("a path"))
}

/// Spends a coin of the phone's wallet.
pub(crate) fn spend(phone: &Phone, index: u32, outputs: Vec<(u64, bitcoin::ScriptBuf)>) -> Psbt {
    let keys = phone.signer.keys();
    let script = keys.script(Account::Bip84, Keychain::External, index);
    let coin = paying(
        &[outpoint(1)],
        vec![(COIN_SAT, script.expect("an address"))],
    );
    let spent = OutPoint::new(coin.compute_txid(), 0);
    let mut psbt = Psbt::from_unsigned_tx(paying(&[spent], outputs)).expect("no signatures");
    psbt.inputs[0].witness_utxo = Some(coin.output[0].clone());
    psbt.inputs[0].non_witness_utxo = Some(coin);
    let path = source(&format!("m/84'/1'/0'/0/{index}"));
    psbt.inputs[0].bip32_derivation.insert(thiefs_key(), path);
    psbt
}

/// An output back to the owner.
fn add_change(phone: &Phone, psbt: &mut Psbt, sat: u64, index: u32) {
    let keys = phone.signer.keys();
    let script = keys.script(Account::Bip84, Keychain::Internal, index);
    psbt.unsigned_tx.output.push(TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: script.expect("an address"),
    });
    let mut output = Output::default();
    let path = source(&format!("m/84'/1'/0'/1/{index}"));
    output.bip32_derivation.insert(thiefs_key(), path);
    psbt.outputs.push(output);
}

pub(crate) fn sign_psbt(psbt: &Psbt, purpose: Purpose) -> Op {
    Op::SignPsbt(SignPsbt {
        psbt: psbt.serialize(),
        purpose: purpose.into(),
    })
}

/// What a host changes in a transaction before it asks for the signature.
pub(crate) type Change = fn(&Phone, &mut Psbt);

/// Of a transaction whose second output is 990,000 sat of change.
const CHANGE_TAKEN: [(&str, Change); 4] = [
    ("whose change is the thief's", |_, it| {
        it.unsigned_tx.output[1].script_pubkey = thief()
    }),
    ("whose change is not proved", |_, it| {
        it.outputs[1] = Output::default()
    }),
    ("whose change nobody finds", |phone, it| {
        it.unsigned_tx.output.pop();
        it.outputs.pop();
        add_change(phone, it, 990_000, 1 << 20);
    }),
    ("at a fee of all that is left", |_, it| {
        it.unsigned_tx.output.pop();
        it.outputs.pop();
    }),
];

pub(super) fn cases() -> Vec<Case> {
    let mut all = sends();
    all.extend(inputs());
    all.extend(fundings());
    all.extend(bumps());
    all.extend(unasked_bumps());
    all.extend(spending());
    all
}

/// The owner asks to send this to the thief's script, which is a payee's here.
fn intend(phone: &mut Phone, id: u8, amount_sat: u64) {
    let address = Address::from_script(&thief(), Network::Regtest).expect("an address");
    let asked =
        phone
            .signer
            .add_onchain_intent(&[id], &address.to_string(), amount_sat, 20_000, NOW);
    phone.keep(&asked.expect("an intent").records);
}

/// A payment that was asked for, with change.
fn sending(phone: &mut Phone) -> Psbt {
    intend(phone, 1, 1_000_000);
    let mut psbt = spend(phone, 0, vec![(1_000_000, thief())]);
    add_change(phone, &mut psbt, 990_000, 7);
    psbt
}

fn sends() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SendUnasked);
    cases.honest("a payment that was asked for", |phone| {
        let psbt = sending(phone);
        sign_psbt(&psbt, Purpose::Send)
    });
    cases.honest("the same payment again", |phone| {
        let psbt = sending(phone);
        phone
            .ask(sign_psbt(&psbt, Purpose::Send))
            .expect("an honest step");
        sign_psbt(&psbt, Purpose::Send)
    });
    cases.attack("nobody asked for a payment", |phone| {
        let psbt = spend(phone, 0, vec![(1_000_000, thief())]);
        sign_psbt(&psbt, Purpose::Send)
    });
    let own: [(&str, Change); 5] = [
        ("of one satoshi more", |_, it| {
            it.unsigned_tx.output[0].value += Amount::ONE_SAT
        }),
        ("of one satoshi less", |_, it| {
            it.unsigned_tx.output[0].value -= Amount::ONE_SAT
        }),
        ("to somebody else", |phone, it| {
            it.unsigned_tx.output[0].script_pubkey = super::closing::own_script(phone, 5);
        }),
        ("with a further output", |_, it| {
            it.unsigned_tx.output[1].value = Amount::from_sat(980_000);
            it.unsigned_tx.output.push(TxOut {
                value: Amount::from_sat(5_000),
                script_pubkey: thief(),
            });
            it.outputs.push(Output::default());
        }),
        ("at a fee above the limit", |_, it| {
            it.unsigned_tx.output[1].value = Amount::from_sat(949_999)
        }),
    ];
    for (name, change) in own.into_iter().chain(CHANGE_TAKEN) {
        cases.attack(format!("a payment {name}"), move |phone| {
            let mut psbt = sending(phone);
            change(phone, &mut psbt);
            sign_psbt(&psbt, Purpose::Send)
        });
    }
    cases.attack("a second payment for one request", |phone| {
        let psbt = sending(phone);
        phone
            .ask(sign_psbt(&psbt, Purpose::Send))
            .expect("an honest step");
        let mut second = spend(phone, 1, vec![(1_000_000, thief())]);
        add_change(phone, &mut second, 990_000, 8);
        sign_psbt(&second, Purpose::Send)
    });
    cases.attack("a payment whose result is delivered", |phone| {
        let psbt = sending(phone);
        let ended = phone.signer.result_delivered(&[1]).expect("it is known");
        phone.keep(&ended.records);
        sign_psbt(&psbt, Purpose::Send)
    });
    cases.all
}

fn inputs() -> Vec<Case> {
    let mut cases = Cases::of(Rule::NotOurInput);
    cases.honest("a coin of the wallet", |phone| {
        let psbt = sending(phone);
        sign_psbt(&psbt, Purpose::Send)
    });
    for (name, change) in [
        (
            "of another wallet",
            (|_, it| {
                let sources = it.inputs[0].bip32_derivation.values_mut();
                sources.for_each(|source| source.0 = Fingerprint::from([1; 4]));
            }) as Change,
        ),
        ("at a path of the master", |_, it| {
            let sources = it.inputs[0].bip32_derivation.values_mut();
            sources.for_each(|it| it.1 = "m/0'".parse().expect("a path"));
        }),
        ("at another index", |_, it| {
            let sources = it.inputs[0].bip32_derivation.values_mut();
            sources.for_each(|it| it.1 = "m/84'/1'/0'/0/9".parse().expect("a path"));
        }),
        ("of another account", |_, it| {
            let sources = it.inputs[0].bip32_derivation.values_mut();
            sources.for_each(|it| it.1 = "m/86'/1'/0'/0/0".parse().expect("a path"));
        }),
        ("without its previous transaction", |_, it| {
            it.inputs[0].non_witness_utxo = None
        }),
        ("with another previous transaction", |_, it| {
            it.inputs[0].non_witness_utxo = Some(paying(&[outpoint(9)], vec![(COIN_SAT, thief())]));
        }),
        (
            "of another value than its previous transaction has",
            |_, it| {
                let spent = it.inputs[0].witness_utxo.as_mut().expect("it is given");
                spent.value += Amount::ONE_SAT;
            },
        ),
        ("with a signature that covers nothing", |_, it| {
            it.inputs[0].sighash_type = Some(EcdsaSighashType::None.into());
        }),
        ("with a signature that covers one output", |_, it| {
            it.inputs[0].sighash_type = Some(EcdsaSighashType::Single.into());
        }),
        ("with a signature that covers one input", |_, it| {
            it.inputs[0].sighash_type = Some(EcdsaSighashType::AllPlusAnyoneCanPay.into());
        }),
        ("with a signature that covers neither", |_, it| {
            it.inputs[0].sighash_type = Some(EcdsaSighashType::NonePlusAnyoneCanPay.into());
        }),
        ("beside somebody else's", |_, it| {
            let mut input = it.unsigned_tx.input[0].clone();
            input.previous_output = outpoint(9);
            it.unsigned_tx.input.push(input);
            it.inputs.push(Default::default());
        }),
    ] {
        cases.attack(format!("a coin {name}"), move |phone| {
            let mut psbt = sending(phone);
            change(phone, &mut psbt);
            sign_psbt(&psbt, Purpose::Send)
        });
    }
    cases.attack(
        "a coin for a fee without its previous transaction",
        |phone| {
            let mut psbt = bumping(phone, 1_990_000);
            psbt.inputs[0].non_witness_utxo = None;
            sign_psbt(&psbt, Purpose::Bump)
        },
    );
    cases.all
}

/// A funding of a channel that was asked for.
pub(crate) fn funding(phone: &mut Phone, change: fn(&Phone, &mut Psbt)) -> (Channel, Psbt) {
    let draft = Channel::new(phone);
    let ours = draft.parameters.holder_pubkeys.funding_pubkey;
    let theirs = draft.peer_parameters.holder_pubkeys.funding_pubkey;
    let script = make_funding_redeemscript(&ours, &theirs).to_p2wsh();
    let mut psbt = spend(phone, 0, vec![(VALUE_SAT, script)]);
    add_change(phone, &mut psbt, 990_000, 7);
    change(phone, &mut psbt);
    let funding = lightning::chain::transaction::OutPoint {
        txid: psbt.unsigned_tx.compute_txid(),
        index: 0,
    };
    let features = ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies();
    let mut channel = Channel::funded_by(phone, features, funding);
    channel.fund();
    phone.intend_opening(&channel);
    phone.ask(channel.setup()).expect("an honest step");
    (channel, psbt)
}

pub(crate) fn first(channel: &Channel) -> Op {
    validate(&channel.holder_at(0, 1_000, FUNDER_SAT, 0))
}

fn fundings() -> Vec<Case> {
    let mut early = Cases::of(Rule::FundingBeforeValidate);
    for purpose in [Purpose::Funding, Purpose::Send, Purpose::Bump] {
        early.attack(
            format!("a funding before its first commitment, as {purpose:?}"),
            move |phone| {
                let (_, psbt) = funding(phone, |_, _| ());
                sign_psbt(&psbt, purpose)
            },
        );
    }
    early.honest("a funding after its first commitment", |phone| {
        let (channel, psbt) = funding(phone, |_, _| ());
        phone.ask(first(&channel)).expect("an honest step");
        sign_psbt(&psbt, Purpose::Funding)
    });

    let mut outputs = Cases::of(Rule::FundingOutput);
    outputs.honest("a funding with its output", |phone| {
        let (channel, psbt) = funding(phone, |_, _| ());
        phone.ask(first(&channel)).expect("an honest step");
        sign_psbt(&psbt, Purpose::Funding)
    });
    for (name, change) in [
        (
            "of another transaction",
            (|_, it| it.unsigned_tx.lock_time = bitcoin::absolute::LockTime::from_consensus(1))
                as Change,
        ),
        ("of somebody else's script", |_, it| {
            it.unsigned_tx.output[0].script_pubkey = thief()
        }),
        ("of one satoshi less", |_, it| {
            it.unsigned_tx.output[0].value -= Amount::ONE_SAT
        }),
        ("without any", |_, it| {
            it.unsigned_tx.output.remove(0);
            it.outputs.remove(0);
        }),
    ] {
        outputs.attack(format!("a funding {name} after the setup"), move |phone| {
            let (channel, mut psbt) = funding(phone, |_, _| ());
            phone.ask(first(&channel)).expect("an honest step");
            change(phone, &mut psbt);
            sign_psbt(&psbt, Purpose::Funding)
        });
    }
    for (name, change) in [
        (
            "at another place",
            (|_, it| it.unsigned_tx.output.swap(0, 1)) as Change,
        ),
        ("of one satoshi more", |_, it| {
            it.unsigned_tx.output[0].value += Amount::ONE_SAT
        }),
        ("to the thief", |_, it| {
            it.unsigned_tx.output[0].script_pubkey = thief()
        }),
    ] {
        outputs.attack(
            format!("a funding whose output was {name} from the beginning"),
            move |phone| {
                let (channel, psbt) = funding(phone, change);
                phone.ask(first(&channel)).expect("an honest step");
                sign_psbt(&psbt, Purpose::Funding)
            },
        );
    }

    let mut unasked = Cases::of(Rule::FundingUnasked);
    unasked.honest("a funding with change", |phone| {
        let (channel, psbt) = funding(phone, |_, _| ());
        phone.ask(first(&channel)).expect("an honest step");
        sign_psbt(&psbt, Purpose::Funding)
    });
    unasked.honest("the same funding again", |phone| {
        let (channel, psbt) = funding(phone, |_, _| ());
        phone.ask(first(&channel)).expect("an honest step");
        phone
            .ask(sign_psbt(&psbt, Purpose::Funding))
            .expect("an honest step");
        phone.restart();
        sign_psbt(&psbt, Purpose::Funding)
    });
    let own: [(&str, Change); 2] = [
        ("with a further output", |_, it| {
            it.unsigned_tx.output[1].value = Amount::from_sat(500_000);
            it.unsigned_tx.output.push(TxOut {
                value: Amount::from_sat(490_000),
                script_pubkey: thief(),
            });
            it.outputs.push(Output::default());
        }),
        ("at a fee above the limit", |_, it| {
            it.unsigned_tx.output[1].value = Amount::from_sat(900_000)
        }),
    ];
    for (name, change) in own.into_iter().chain(CHANGE_TAKEN) {
        unasked.attack(format!("a funding {name}"), move |phone| {
            let (channel, psbt) = funding(phone, change);
            phone.ask(first(&channel)).expect("an honest step");
            sign_psbt(&psbt, Purpose::Funding)
        });
    }
    let mut again = Cases::of(Rule::SetupUnasked);
    again.attack("a second channel for an opening that is funded", |phone| {
        let (channel, psbt) = funding(phone, |_, _| ());
        for op in [first(&channel), sign_psbt(&psbt, Purpose::Funding)] {
            phone.ask(op).expect("an honest step");
        }
        super::setup::with_other_keys(phone, &channel, 5)
    });
    let mut all = early.all;
    all.extend(outputs.all);
    all.extend(unasked.all);
    all.extend(again.all);
    all
}

/// A child of a transaction that the owner wants to confirm sooner, with `left_sat` back to the owner.
fn bumping(phone: &mut Phone, left_sat: u64) -> Psbt {
    let psbt = unasked_bump(phone, left_sat);
    phone.accelerate(psbt.unsigned_tx.input[0].previous_output.txid);
    psbt
}

/// The same of a transaction that the owner said nothing about.
fn unasked_bump(phone: &Phone, left_sat: u64) -> Psbt {
    let mut psbt = spend(phone, 0, vec![]);
    add_change(phone, &mut psbt, left_sat, 7);
    psbt
}

/// That, and an output of this commitment.
fn bump_of(phone: &Phone, commitment: &CommitmentTransaction, vout: usize) -> Psbt {
    let mut psbt = unasked_bump(phone, 1_990_000);
    let parent = commitment.trust().built_transaction().transaction.clone();
    let mut input = psbt.unsigned_tx.input[0].clone();
    input.previous_output = OutPoint::new(parent.compute_txid(), vout as u32);
    psbt.unsigned_tx.input.push(input);
    psbt.inputs.push(bitcoin::psbt::Input {
        witness_utxo: Some(parent.output[vout].clone()),
        non_witness_utxo: Some(parent),
        ..Default::default()
    });
    psbt
}

/// The place of a side's anchor in a commitment.
fn anchor(commitment: &CommitmentTransaction, owner: &ChannelPublicKeys) -> usize {
    let script = get_keyed_anchor_redeemscript(&owner.funding_pubkey).to_p2wsh();
    let built = &commitment.trust().built_transaction().transaction.clone();
    let mut outputs = built.output.iter();
    let place = outputs.position(|output| output.script_pubkey == script);
    place.expect("an anchor")
}

fn unasked_bumps() -> Vec<Case> {
    let mut cases = Cases::of(Rule::BumpUnasked);
    cases.honest("a child of a transaction that the owner named", |phone| {
        sign_psbt(&bumping(phone, 1_990_000), Purpose::Bump)
    });
    cases.honest("a child of the owner's anchor", |phone| {
        let channel = Channel::open(phone);
        let commitment = channel.holder(0, 400_000, &[]);
        let vout = anchor(&commitment, &channel.parameters.holder_pubkeys);
        sign_psbt(&bump_of(phone, &commitment, vout), Purpose::Bump)
    });
    cases.honest("an HTLC of the owner's commitment", |phone| {
        let channel = Channel::open(phone);
        let commitment = channel.holder(1, 400_000, &[Htlc::incoming([7; 32], 40_000_000)]);
        phone.ask(validate(&commitment)).expect("an honest step");
        let htlc = commitment.nondust_htlcs()[0].transaction_output_index;
        let vout = htlc.expect("an output") as usize;
        sign_psbt(&bump_of(phone, &commitment, vout), Purpose::Bump)
    });
    cases.attack("a child of nothing that the owner named", |phone| {
        sign_psbt(&unasked_bump(phone, 1_990_000), Purpose::Bump)
    });
    cases.attack("a child of another than the owner named", |phone| {
        phone.accelerate(outpoint(9).txid);
        sign_psbt(&unasked_bump(phone, 1_990_000), Purpose::Bump)
    });
    cases.attack("somebody else's output of what the owner named", |phone| {
        let parent = paying(&[outpoint(3)], vec![(9_000, thief())]);
        phone.accelerate(parent.compute_txid());
        let mut psbt = unasked_bump(phone, 1_990_000);
        let mut input = psbt.unsigned_tx.input[0].clone();
        input.previous_output = OutPoint::new(parent.compute_txid(), 0);
        psbt.unsigned_tx.input.push(input);
        psbt.inputs.push(bitcoin::psbt::Input {
            witness_utxo: Some(parent.output[0].clone()),
            non_witness_utxo: Some(parent),
            ..Default::default()
        });
        sign_psbt(&psbt, Purpose::Bump)
    });
    type Commitment = fn(&Channel) -> CommitmentTransaction;
    let peers: Commitment = |it| it.theirs(0, 400_000, &[]);
    let ours: Commitment = |it| (*it.holder(0, 400_000, &[])).clone();
    for (name, commitment, is_owners) in [
        ("the peer's anchor", ours, false),
        ("the owner's anchor of the peer's commitment", peers, true),
        ("the peer's anchor of the peer's commitment", peers, false),
    ] {
        cases.attack(format!("a child of {name}"), move |phone| {
            let channel = Channel::open(phone);
            let commitment = commitment(&channel);
            let side = match is_owners {
                true => &channel.parameters,
                false => &channel.peer_parameters,
            };
            let vout = anchor(&commitment, &side.holder_pubkeys);
            sign_psbt(&bump_of(phone, &commitment, vout), Purpose::Bump)
        });
    }
    for (name, step) in [("is revoked", 0), ("the phone has not seen", 2)] {
        cases.attack(
            format!("a child of a commitment that {name}"),
            move |phone| {
                let channel = Channel::open(phone);
                for op in [validate(&channel.holder(1, 400_000, &[])), release(0)] {
                    phone.ask(op).expect("an honest step");
                }
                let commitment = channel.holder(step, 400_000, &[]);
                let vout = anchor(&commitment, &channel.parameters.holder_pubkeys);
                sign_psbt(&bump_of(phone, &commitment, vout), Purpose::Bump)
            },
        );
    }
    cases.all
}

fn bumps() -> Vec<Case> {
    let mut outputs = Cases::of(Rule::BumpOutput);
    outputs.honest("a transaction for a fee, with change", |phone| {
        sign_psbt(&bumping(phone, 1_990_000), Purpose::Bump)
    });
    for (name, change) in [
        (
            "pays the thief",
            (|_, it| it.unsigned_tx.output[0].script_pubkey = thief()) as Change,
        ),
        ("pays the thief too", |_, it| {
            it.unsigned_tx.output[0].value = Amount::from_sat(1_000_000);
            it.unsigned_tx.output.push(TxOut {
                value: Amount::from_sat(990_000),
                script_pubkey: thief(),
            });
            it.outputs.push(Output::default());
        }),
        ("has change that is not proved", |_, it| {
            it.outputs[0] = Output::default()
        }),
        ("has change that nobody finds", |phone, it| {
            it.unsigned_tx.output.pop();
            it.outputs.pop();
            add_change(phone, it, 1_990_000, 1 << 20);
        }),
    ] {
        outputs.attack(
            format!("a transaction for a fee that {name}"),
            move |phone| {
                let mut psbt = bumping(phone, 1_990_000);
                change(phone, &mut psbt);
                sign_psbt(&psbt, Purpose::Bump)
            },
        );
    }
    let mut fees = Cases::of(Rule::CloseFee);
    fees.honest("a transaction for a fee at the limit", |phone| {
        sign_psbt(&bumping(phone, 1_950_000), Purpose::Bump)
    });
    for left_sat in [1_949_999, 1_000_000, 1_000] {
        fees.attack(
            format!("a transaction for a fee that leaves {left_sat} sat"),
            move |phone| sign_psbt(&bumping(phone, left_sat), Purpose::Bump),
        );
    }
    let mut all = outputs.all;
    all.extend(fees.all);
    all
}

fn spending() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SpendLimit);
    let pay = |phone: &mut Phone, number: u8, sat: u64, fee_sat: u64| {
        let now = phone.now_unix_s;
        let added =
            phone
                .signer
                .add_intent([number; 32], sat * 1_000, fee_sat * 1_000, now + 3_600, now);
        verdict(added.map(drop))
    };
    cases.add(true, "a payment within all limits", move |phone| {
        pay(phone, 1, 1_000_000, 1_000)
    });
    cases.add(
        true,
        "a payment an hour after one that took the whole hour",
        move |phone| {
            phone.limit("spend_per_hour_sat", "1000000");
            pay(phone, 1, 1_000_000, 0);
            phone.now_unix_s += 3_601;
            pay(phone, 2, 1_000_000, 0)
        },
    );
    for (limit, value, sat, fee_sat) in [
        ("spend_per_hour_sat", "1000000", 600_000, 0),
        ("spend_per_day_sat", "20000000", 11_000_000, 0),
        ("fees_per_day_sat", "1000", 100_000, 501),
        ("in_flight_sat", "1000000", 600_000, 0),
        ("trimmed_per_day_sat", "500", 300, 0),
    ] {
        cases.add(
            false,
            format!("two payments that are together above {limit}"),
            move |phone| {
                phone.limit(limit, value);
                pay(phone, 1, sat, fee_sat);
                pay(phone, 2, sat, fee_sat)
            },
        );
        cases.add(false, format!("one payment above {limit}"), move |phone| {
            // An hour cannot have more than a day.
            phone.limit("spend_per_hour_sat", "0");
            if limit != "spend_per_hour_sat" {
                phone.limit(limit, "0");
            }
            let small = limit == "trimmed_per_day_sat";
            pay(phone, 1, if small { 300 } else { 400_000 }, 1)
        });
    }
    cases.all
}
