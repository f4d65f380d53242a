//! Setups of channels that would not be the owner's, not be safe, or that nobody asked for.

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::{ChannelPublicKeys, ChannelTransactionParameters};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use lightning::types::features::ChannelTypeFeatures;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ChannelTerms, SetupChannel};
use longhand_signer::Rule;

use super::commitment::thiefs_key;
use crate::scene::*;
use crate::{Case, Cases, asked};

const KEY_NAMES: [&str; 5] = ["funding", "revocation", "payment", "delayed", "HTLC"];

/// One of the keys of a side.
fn key(keys: &ChannelPublicKeys, index: usize) -> PublicKey {
    [
        keys.funding_pubkey,
        keys.revocation_basepoint.0,
        keys.payment_point,
        keys.delayed_payment_basepoint.0,
        keys.htlc_basepoint.0,
    ][index]
}

fn set_key(keys: &mut ChannelPublicKeys, index: usize, key: PublicKey) {
    match index {
        0 => keys.funding_pubkey = key,
        1 => keys.revocation_basepoint = RevocationBasepoint(key),
        2 => keys.payment_point = key,
        3 => keys.delayed_payment_basepoint = DelayedPaymentBasepoint(key),
        _ => keys.htlc_basepoint = HtlcBasepoint(key),
    }
}

fn peers(parameters: &mut ChannelTransactionParameters) -> &mut ChannelPublicKeys {
    let theirs = parameters.counterparty_parameters.as_mut();
    &mut theirs.expect("a whole channel").pubkeys
}

type Change = Box<dyn Fn(&mut ChannelTransactionParameters) + Send + Sync>;

/// Parameters of a channel that was set up before, changed in one place.
fn changes() -> Vec<(String, Change)> {
    let mut all: Vec<(String, Change)> = vec![
        (
            "one satoshi more".into(),
            Box::new(|it| it.channel_value_satoshis += 1),
        ),
        (
            "one satoshi less".into(),
            Box::new(|it| it.channel_value_satoshis -= 1),
        ),
        (
            "a longer delay of the peer".into(),
            Box::new(|it| it.holder_selected_contest_delay += 1),
        ),
        (
            "a shorter delay of the peer".into(),
            Box::new(|it| it.holder_selected_contest_delay -= 1),
        ),
        (
            "a longer delay of the owner".into(),
            Box::new(|it| {
                let theirs = it.counterparty_parameters.as_mut();
                theirs.expect("a whole channel").selected_contest_delay += 1;
            }),
        ),
        (
            "the other funder".into(),
            Box::new(|it| it.is_outbound_from_holder ^= true),
        ),
        (
            "another funding output".into(),
            Box::new(|it| it.funding_outpoint.as_mut().expect("a whole channel").index += 1),
        ),
        (
            "another funding transaction".into(),
            Box::new(|it| {
                let txid = Txid::from_byte_array([9; 32]);
                it.funding_outpoint = Some(OutPoint { txid, index: 0 });
            }),
        ),
        (
            "another type".into(),
            Box::new(|it| it.channel_type_features = ChannelTypeFeatures::only_static_remote_key()),
        ),
        (
            "a splice".into(),
            Box::new(|it| it.splice_parent_funding_txid = Some(Txid::from_byte_array([9; 32]))),
        ),
    ];
    for (index, name) in KEY_NAMES.iter().enumerate() {
        all.push((
            format!("another {name} key of the peer"),
            Box::new(move |it| set_key(peers(it), index, thiefs_key())),
        ));
        all.push((
            format!("another {name} key of the owner"),
            Box::new(move |it| set_key(&mut it.holder_pubkeys, index, thiefs_key())),
        ));
    }
    all
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = changed();
    all.extend(keys());
    all.extend(terms());
    all.extend(unasked());
    all.extend(ledgers());
    all
}

fn changed() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SetupChanged);
    cases.honest("the same setup again", |phone| Channel::open(phone).setup());
    for (name, change) in changes() {
        cases.attack(format!("a setup again with {name}"), move |phone| {
            let channel = Channel::open(phone);
            let mut parameters = channel.parameters.clone();
            change(&mut parameters);
            channel.setup_with(&parameters)
        });
    }
    cases.attack("a setup again with another peer", |phone| {
        let Op::SetupChannel(setup) = Channel::open(phone).setup() else {
            unreachable!("it is a setup")
        };
        Op::SetupChannel(SetupChannel {
            counterparty_node_id: thiefs_key().serialize().to_vec(),
            ..setup
        })
    });
    cases.all
}

fn keys() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SetupKeys);
    cases.honest("the phone's keys, and the peer's", |phone| {
        Channel::new(phone).setup()
    });
    for (index, name) in KEY_NAMES.iter().enumerate() {
        cases.attack(
            format!("the {} key of the owner is the thief's", name),
            move |phone| {
                let channel = Channel::new(phone);
                let mut parameters = channel.parameters.clone();
                set_key(&mut parameters.holder_pubkeys, index, thiefs_key());
                channel.setup_with(&parameters)
            },
        );
        for (ours, our_name) in KEY_NAMES.iter().enumerate() {
            let name = format!(
                "the {} key of the peer is the owner's {} key",
                name, our_name
            );
            cases.attack(name, move |phone| {
                let channel = Channel::new(phone);
                let mut parameters = channel.parameters.clone();
                let key = key(&parameters.holder_pubkeys, ours);
                set_key(peers(&mut parameters), index, key);
                channel.setup_with(&parameters)
            });
        }
    }
    cases.all
}

fn terms() -> Vec<Case> {
    let mut types = Cases::of(Rule::SetupType);
    types.honest("a channel with anchors", |phone| {
        Channel::new(phone).setup()
    });
    types.attack("a channel without anchors", |phone| {
        Channel::of_type(phone, ChannelTypeFeatures::only_static_remote_key()).setup()
    });
    types.attack("a splice", |phone| {
        let mut channel = Channel::new(phone);
        channel.parameters.splice_parent_funding_txid = Some(Txid::from_byte_array([9; 32]));
        channel.setup()
    });

    let mut delays = Cases::of(Rule::SetupDelay);
    for (own, peer, is_hub, is_good) in [
        (2_016, 144, false, true),
        (144, 1_008, true, true),
        (2_017, 144, false, false),
        (10_000, 144, false, false),
        (u16::MAX, 144, false, false),
        (144, 0, false, false),
        (144, 1, false, false),
        (144, 143, false, false),
        (144, 144, true, false),
        (144, 1_007, true, false),
    ] {
        let of = if is_hub { "the hub" } else { "a peer" };
        let name = format!("{own} blocks for the owner, {peer} for {of}");
        let play = move |phone: &mut Phone| {
            let mut channel = Channel::new(phone);
            if is_hub {
                phone.signer.set_hub(Some(channel.peer_node_id()));
            }
            channel.parameters.holder_selected_contest_delay = peer;
            let theirs = channel.parameters.counterparty_parameters.as_mut();
            theirs.expect("a whole channel").selected_contest_delay = own;
            channel.setup()
        };
        match is_good {
            true => delays.honest(name, play),
            false => delays.attack(name, play),
        }
    }

    let mut sizes = Cases::of(Rule::SetupSize);
    sizes.honest("a channel of the largest size", |phone| {
        phone.limit("channel_sat", "1000000");
        Channel::new(phone).setup()
    });
    for limit in ["999999", "20000", "0"] {
        sizes.attack(
            format!("a channel of 1,000,000 sat, of {limit} at most"),
            move |phone| {
                phone.limit("channel_sat", limit);
                Channel::new(phone).setup()
            },
        );
    }

    let mut peers_terms = Cases::of(Rule::SetupTerms);
    for (dust_sat, reserve_sat, is_good) in [
        (354, 10_000, true),
        (10_000, 0, true),
        (10_001, 10_000, false),
        (VALUE_SAT, 10_000, false),
        (u64::MAX, 10_000, false),
        (354, 10_001, false),
        (354, VALUE_SAT, false),
        (354, u64::MAX, false),
    ] {
        let name = format!("a dust limit of {dust_sat} sat and a reserve of {reserve_sat} sat");
        let play = move |phone: &mut Phone| {
            let Op::SetupChannel(setup) = Channel::new(phone).setup() else {
                unreachable!("it is a setup")
            };
            let terms = Some(ChannelTerms {
                peer_dust_limit_sat: dust_sat,
                owner_reserve_sat: reserve_sat,
            });
            Op::SetupChannel(SetupChannel { terms, ..setup })
        };
        match is_good {
            true => peers_terms.honest(name, play),
            false => peers_terms.attack(name, play),
        }
    }

    let mut outpoints = Cases::of(Rule::SetupOutpoint);
    outpoints.honest("a second channel with an output of its own", |phone| {
        second(phone, 1)
    });
    outpoints.attack("a second channel in the output of the first", |phone| {
        second(phone, 0)
    });
    let mut all = types.all;
    all.extend(delays.all);
    all.extend(sizes.all);
    all.extend(peers_terms.all);
    all.extend(outpoints.all);
    all
}

/// The setup of a second channel, with other keys.
fn second(phone: &mut Phone, index: u16) -> Op {
    let channel = Channel::new(phone);
    phone.ask(channel.setup()).expect("an honest step");
    with_other_keys(phone, &channel, index)
}

/// The setup of a channel like this, with other keys, funded by an output of a transaction that nobody has seen.
pub(crate) fn with_other_keys(phone: &mut Phone, channel: &Channel, index: u16) -> Op {
    let mut parameters = channel.parameters.clone();
    let (keys_id, keys) = phone.more_keys([8; 32]);
    parameters.holder_pubkeys = keys;
    let funding = parameters.funding_outpoint.as_mut();
    funding.expect("a whole channel").index = index;
    phone.keys_id = keys_id;
    channel.setup_with(&parameters)
}

fn unasked() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SetupUnasked);
    cases.honest("an opening that was asked for", |phone| {
        Channel::outbound(phone).setup()
    });
    cases.honest("an opening by a peer that is listed", |phone| {
        let channel = Channel::new(phone);
        phone.limit("inbound", &channel.peer_node_id().to_string());
        channel.setup()
    });
    cases.honest("an opening by the hub", |phone| {
        let channel = Channel::new(phone);
        phone.limit("inbound", "hub");
        phone.limit("shortest_hub_delay_blocks", "144");
        phone.signer.set_hub(Some(channel.peer_node_id()));
        channel.setup()
    });
    for (name, inbound) in [
        ("no hub", "hub".to_owned()),
        ("not listed", thiefs_key().to_string()),
    ] {
        cases.attack(
            format!("an opening by a peer that is {name}"),
            move |phone| {
                phone.limit("inbound", &inbound);
                Channel::new(phone).setup()
            },
        );
    }
    cases.attack("an opening that nobody asked for", |phone| {
        let mut channel = Channel::new(phone);
        channel.fund();
        channel.setup()
    });
    cases.attack("an opening whose result is delivered", |phone| {
        let channel = Channel::outbound(phone);
        let ended = phone
            .signer
            .result_delivered(&OPENING)
            .expect("it is known");
        phone.keep(&ended.records);
        channel.setup()
    });
    for (more, by) in [
        ("one satoshi more", 1),
        ("one satoshi less", -1),
        ("twice as much", 1_000_000),
    ] {
        cases.attack(format!("an opening of {more}"), move |phone| {
            let mut channel = Channel::outbound(phone);
            let sat = channel.parameters.channel_value_satoshis;
            channel.parameters.channel_value_satoshis = sat.saturating_add_signed(by);
            channel.setup()
        });
    }
    let of = |name: &str, change: fn(SetupChannel) -> SetupChannel| (name.to_owned(), change);
    for (name, change) in [
        of("with another peer", |it| SetupChannel {
            counterparty_node_id: thiefs_key().serialize().to_vec(),
            ..it
        }),
        of("with another id", |it| SetupChannel {
            opening_id: vec![9; 16],
            ..it
        }),
        of("without an id", |it| SetupChannel {
            opening_id: Vec::new(),
            ..it
        }),
    ] {
        cases.attack(format!("an opening {name}"), move |phone| {
            let Op::SetupChannel(setup) = Channel::outbound(phone).setup() else {
                unreachable!("it is a setup")
            };
            Op::SetupChannel(change(setup))
        });
    }
    cases.all
}

fn ledgers() -> Vec<Case> {
    let mut cases = Cases::of(Rule::SetupLedger);
    cases.honest("keys that were given with this ledger", |phone| {
        Channel::new(phone).setup()
    });
    for byte in 0..32 {
        cases.add(
            false,
            format!("other keys, in byte {byte} of their id"),
            move |phone| {
                let op = Channel::new(phone).setup();
                phone.keys_id[byte] ^= 1;
                asked(phone, op)
            },
        );
    }
    cases.add(false, "keys that were given with another ledger", |phone| {
        // The phone of before, with the same words.
        let mut before = Phone::with_ledger_key([9; 32]);
        let (keys_id, keys) = before.more_keys([3; 32]);
        let channel = Channel::new(phone);
        let mut parameters = channel.parameters.clone();
        parameters.holder_pubkeys = keys;
        phone.keys_id = keys_id;
        asked(phone, channel.setup_with(&parameters))
    });
    let mut unknown = Cases::of(Rule::UnknownChannel);
    unknown.honest("an operation on a channel", |phone| {
        let channel = Channel::open(phone);
        validate(&channel.holder(1, 400_000, &[]))
    });
    for (name, op) in on_a_channel() {
        unknown.add(
            false,
            format!("{name} of a channel that was not set up"),
            move |phone| {
                let channel = Channel::open(phone);
                let op = op(&channel);
                phone.keys_id = [1; 32];
                asked(phone, op)
            },
        );
    }
    let mut all = cases.all;
    all.extend(unknown.all);
    all
}

type OnChannel = (&'static str, fn(&Channel) -> Op);

fn on_a_channel() -> Vec<OnChannel> {
    vec![
        ("a commitment of the owner", |it| {
            validate(&it.holder(1, 400_000, &[]))
        }),
        ("a commitment of the peer", |it| {
            sign(&it.theirs(1, 400_000, &[]))
        }),
        ("a secret", |_| release(0)),
        ("a revocation", |it| it.revocation(0)),
        ("a signature for broadcast", |it| {
            sign_holder(&it.holder(0, 400_000, &[]))
        }),
    ]
}
