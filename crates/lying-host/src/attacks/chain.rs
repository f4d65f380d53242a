//! Transactions of the on-chain wallet, gossip, and spending.

use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::constants::ChainHash;
use bitcoin::psbt::{Output, Psbt};
use bitcoin::{Address, Amount, EcdsaSighashType, Network, OutPoint, TxOut};
use lightning::ln::chan_utils::make_funding_redeemscript;
use lightning::ln::msgs::{UnsignedChannelUpdate, UnsignedNodeAnnouncement};
use lightning::routing::gossip::{NodeAlias, NodeId};
use lightning::types::features::{ChannelTypeFeatures, NodeFeatures};
use lightning::util::ser::Writeable;
use longhand_proto::signer::sign_gossip::Message as Gossip;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignGossip, SignPsbt};
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
fn spend(phone: &Phone, index: u32, outputs: Vec<(u64, bitcoin::ScriptBuf)>) -> Psbt {
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

fn sign_psbt(psbt: &Psbt, purpose: Purpose) -> Op {
    Op::SignPsbt(SignPsbt {
        psbt: psbt.serialize(),
        purpose: purpose.into(),
    })
}

/// What a host changes in a transaction before it asks for the signature.
type Change = fn(&Phone, &mut Psbt);

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
    all.extend(gossip());
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
fn funding(phone: &mut Phone, change: fn(&Phone, &mut Psbt)) -> (Channel, Psbt) {
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

fn first(channel: &Channel) -> Op {
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

/// A transaction that pays a fee, and `left_sat` back to the owner.
fn bumping(phone: &Phone, left_sat: u64) -> Psbt {
    let mut psbt = spend(phone, 0, vec![]);
    add_change(phone, &mut psbt, left_sat, 7);
    psbt
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

fn gossip() -> Vec<Case> {
    let mut cases = Cases::of(Rule::GossipNetwork);
    let op = |message| {
        Op::SignGossip(SignGossip {
            message: Some(message),
        })
    };
    let update = |chain_hash| UnsignedChannelUpdate {
        chain_hash,
        short_channel_id: 42,
        timestamp: 1,
        message_flags: 1,
        channel_flags: 0,
        cltv_expiry_delta: 40,
        htlc_minimum_msat: 1,
        htlc_maximum_msat: 2,
        fee_base_msat: 3,
        fee_proportional_millionths: 4,
        excess_data: vec![],
    };
    let own = ChainHash::using_genesis_block(Network::Regtest);
    cases.honest("a channel_update of the network", move |_| {
        op(Gossip::ChannelUpdate(update(own).encode()))
    });
    for network in [Network::Bitcoin, Network::Testnet, Network::Signet] {
        let other = ChainHash::using_genesis_block(network);
        cases.attack(format!("a channel_update of {network}"), move |_| {
            op(Gossip::ChannelUpdate(update(other).encode()))
        });
    }
    let statement = ChainHash::from(*b"Lightning Signed Message:I owe 1");
    cases.attack("a channel_update that reads as a statement", move |_| {
        op(Gossip::ChannelUpdate(update(statement).encode()))
    });
    for bytes in [256, 1_000, 19_561] {
        cases.attack(
            format!("a node_announcement with {bytes} bytes of features"),
            move |phone| {
                let node_id = phone.signer.keys().node_id();
                let message = UnsignedNodeAnnouncement {
                    features: NodeFeatures::from_be_bytes(vec![1; bytes]),
                    timestamp: 1,
                    node_id: NodeId::from_pubkey(&node_id),
                    rgb: [0; 3],
                    alias: NodeAlias([0; 32]),
                    addresses: vec![],
                    excess_address_data: vec![],
                    excess_data: vec![],
                };
                op(Gossip::NodeAnnouncement(message.encode()))
            },
        );
    }
    cases.all
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
