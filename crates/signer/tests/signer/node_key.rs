//! The node key opens onions and signs gossip, and can be made to sign nothing else.

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use lightning::ln::msgs::{
    UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedNodeAnnouncement, UpdateAddHTLC,
};
use lightning::types::features::NodeFeatures;
use lightning::util::ser::Writeable;
use longhand_bolt8::ActOne;
use longhand_lying_host::gossip::{
    channel_announcement, channel_update, node_announcement, sign_gossip,
};
use longhand_lying_host::onion::{Offer, peel};
use longhand_lying_host::scene::*;
use longhand_proto::signer::sign_gossip::Message as Gossip;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::Rule;

fn key(byte: u8) -> (SecretKey, Vec<u8>) {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    (
        secret,
        secret.public_key(&Secp256k1::new()).serialize().to_vec(),
    )
}

fn check(bytes: &[u8], answer: Answer, signer: &PublicKey) {
    let Answer::Signature(signature) = answer else {
        panic!("{answer:?}")
    };
    let digest = Message::from_digest(sha256d::Hash::hash(bytes).to_byte_array());
    let signature = Signature::from_compact(&signature).unwrap();
    Secp256k1::new()
        .verify_ecdsa(&digest, &signature, signer)
        .unwrap();
}

#[test]
fn a_handshake_gets_its_shared_secret() {
    let mut phone = Phone::new();
    let (secret, _) = key(5);
    let node_id = phone.signer.keys().node_id();
    let act = ActOne::new(&node_id, &secret).as_bytes().to_vec();
    let of = |act: &[u8], dialed_node_id: &[u8]| {
        Op::Ecdh(Ecdh {
            act: act.to_vec(),
            dialed_node_id: dialed_node_id.to_vec(),
        })
    };
    let answer = phone.ask_on(&[], of(&act, &[])).unwrap();
    let expected = SharedSecret::new(&node_id, &secret);
    let expected = Answer::SharedSecret(expected.secret_bytes().to_vec());
    assert_eq!(answer, expected);
    let (_, hub) = key(6);
    phone.set_hub(PublicKey::from_slice(&hub).unwrap());
    assert_eq!(phone.ask_on(&[], of(&act, &hub)).unwrap(), expected);

    let later = [&[1][..], &act[1..]].concat();
    let no_point = [&[0; 34][..], &act[34..]].concat();
    for act in [&act[..49], &later, &no_point, &[]] {
        assert_eq!(phone.refused(of(act, &hub)), Rule::Malformed);
        assert_eq!(phone.refused(of(act, &[])), Rule::Malformed);
    }
    assert_eq!(phone.refused(of(&act, &hub[..32])), Rule::Malformed);
}

#[test]
fn the_secret_of_an_onion_is_given_when_its_htlc_ends_here() {
    let mut phone = Phone::new();
    Channel::open(&mut phone);
    let node_id = phone.signer.keys().node_id();
    let offer = |hops: Vec<PublicKey>| Offer {
        hops,
        ..Offer::of(Htlc::incoming([7; 32], 5_000), 0, node_id, [8; 32], 5_000)
    };
    let here = offer(vec![node_id]);
    let Ok(Answer::SharedSecret(secret)) = phone.ask_on(&[], here.peel(KEYS_ID)) else {
        panic!()
    };
    let onion_key = here.message().onion_routing_packet.public_key.unwrap();
    // A phone that has read no onion gives the same as a handshake's secret.
    let handshake = Op::Ecdh(Ecdh {
        act: [&[0][..], &onion_key.serialize(), &[7; 16]].concat(),
        dialed_node_id: node_id.serialize().to_vec(),
    });
    let mut another = Phone::new();
    another.set_hub(node_id);
    assert_eq!(
        another.ask_on(&[], handshake),
        Ok(Answer::SharedSecret(secret))
    );
    assert!(phone.signer.payments().next().is_none());

    let (_, stranger) = key(5);
    let stranger = PublicKey::from_slice(&stranger).unwrap();
    let forwarded = offer(vec![node_id, stranger]);
    assert_eq!(phone.refused(forwarded.peel(KEYS_ID)), Rule::OnionForward);
    let elsewhere = offer(vec![stranger]);
    assert_eq!(phone.refused(elsewhere.peel(KEYS_ID)), Rule::OnionForeign);
    assert_eq!(phone.refused(here.peel([1; 32])), Rule::UnknownChannel);
    let blinded = UpdateAddHTLC {
        blinding_point: Some(stranger),
        ..here.message()
    };
    assert_eq!(phone.refused(peel(KEYS_ID, &blinded)), Rule::OnionForeign);
}

#[test]
fn the_nodes_gossip_is_signed() {
    let mut phone = Phone::new();
    let node_id = phone.signer.keys().node_id();
    let bytes = channel_update().encode();
    check(
        &bytes,
        phone
            .ask_on(&[], sign_gossip(Gossip::ChannelUpdate(bytes.clone())))
            .unwrap(),
        &node_id,
    );
    let channel = Channel::open(&mut phone);
    let funding = channel.parameters.holder_pubkeys.funding_pubkey;
    let bytes = channel_announcement(&node_id, &funding).encode();
    check(
        &bytes,
        phone
            .ask_on(&[], sign_gossip(Gossip::ChannelAnnouncement(bytes.clone())))
            .unwrap(),
        &node_id,
    );
    let announced = sign_gossip(Gossip::NodeAnnouncement(
        node_announcement(&node_id).encode(),
    ));
    assert_eq!(phone.refused(announced), Rule::GossipUnasked);

    let foreign = PublicKey::from_slice(&key(9).1).unwrap();
    assert_eq!(
        phone.refused(sign_gossip(Gossip::NodeAnnouncement(
            node_announcement(&foreign).encode()
        ))),
        Rule::Malformed
    );
    let bytes = channel_announcement(&foreign, &foreign).encode();
    assert_eq!(
        phone.refused(sign_gossip(Gossip::ChannelAnnouncement(bytes))),
        Rule::Malformed
    );
}

/// What `signmessage` of Lightning nodes puts before a text that it signs.
const STATEMENT: &[u8; 32] = b"Lightning Signed Message:I owe 1";

#[test]
fn gossip_that_reads_as_a_statement_of_the_nodes_is_refused() {
    let mut phone = Phone::new();
    let node_id = phone.signer.keys().node_id();
    let mut statement = channel_announcement(&node_id, &node_id);
    for chain_hash in [
        ChainHash::from(*STATEMENT),
        ChainHash::using_genesis_block(Network::Bitcoin),
    ] {
        let update = UnsignedChannelUpdate {
            chain_hash,
            excess_data: b"ecause of a bet".to_vec(),
            ..channel_update()
        };
        let update = sign_gossip(Gossip::ChannelUpdate(update.encode()));
        assert_eq!(phone.refused(update), Rule::GossipNetwork);
        statement.chain_hash = chain_hash;
        let announced = sign_gossip(Gossip::ChannelAnnouncement(statement.encode()));
        assert_eq!(phone.refused(announced), Rule::GossipNetwork);
    }

    // The first two letters are the length of the features.
    let length = usize::from(u16::from_be_bytes([STATEMENT[0], STATEMENT[1]]));
    let mut features = STATEMENT[2..].to_vec();
    features.resize(length, b' ');
    let message = UnsignedNodeAnnouncement {
        features: NodeFeatures::from_be_bytes(features),
        ..node_announcement(&node_id)
    };
    let bytes = message.encode();
    assert_eq!(bytes[..STATEMENT.len()], *STATEMENT);
    let announced = sign_gossip(Gossip::NodeAnnouncement(bytes));
    assert_eq!(phone.refused(announced), Rule::GossipNetwork);
}

#[test]
fn a_funding_key_announces_its_channel_and_signs_nothing_else() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let node_id = phone.signer.keys().node_id();
    let funding = channel.parameters.holder_pubkeys.funding_pubkey;
    let announce = |message| Op::SignChannelAnnouncement(SignChannelAnnouncement { message });
    let good = channel_announcement(&node_id, &funding);
    check(
        &good.encode(),
        phone.ask(announce(good.encode())).unwrap(),
        &funding,
    );

    assert_eq!(
        phone.refused(announce(channel_announcement(&node_id, &node_id).encode())),
        Rule::Malformed
    );
    let elsewhere = UnsignedChannelAnnouncement {
        chain_hash: ChainHash::using_genesis_block(Network::Bitcoin),
        ..good.clone()
    };
    assert_eq!(phone.refused(announce(elsewhere.encode())), Rule::Malformed);
    // The preimage of a commitment's sighash (BIP 143), given out for an announcement.
    let commitment = channel.holder(0, 400_000, &[]);
    let mut preimage = Vec::new();
    let transaction = &commitment.trust().built_transaction().transaction;
    let theirs = channel.peer_parameters.holder_pubkeys.funding_pubkey;
    bitcoin::sighash::SighashCache::new(transaction)
        .segwit_v0_encode_signing_data_to(
            &mut preimage,
            0,
            &lightning::ln::chan_utils::make_funding_redeemscript(&funding, &theirs),
            bitcoin::Amount::from_sat(VALUE_SAT),
            bitcoin::EcdsaSighashType::All,
        )
        .unwrap();
    assert_eq!(phone.refused(announce(preimage)), Rule::Malformed);
}

#[test]
fn what_the_owner_opened_unannounced_stays_so_when_the_phone_starts_again() {
    let mut phone = Phone::new();
    let channel = Channel::outbound(&mut phone);
    phone.ask(channel.setup()).unwrap();
    let node_id = phone.signer.keys().node_id();
    let funding = channel.parameters.holder_pubkeys.funding_pubkey;
    let message = channel_announcement(&node_id, &funding).encode();
    let announce = || {
        Op::SignChannelAnnouncement(SignChannelAnnouncement {
            message: message.clone(),
        })
    };
    assert_eq!(phone.refused(announce()), Rule::GossipUnasked);
    phone.restart();
    assert_eq!(phone.refused(announce()), Rule::GossipUnasked);
    // A snapshot in place of the records.
    phone.disk = vec![phone.signer.snapshot().as_bytes().to_vec()];
    phone.restart();
    assert_eq!(phone.refused(announce()), Rule::GossipUnasked);
}
