//! The turns of commitments and revocations, and every way in which a host could ask for a wrong one.

use bitcoin::Network;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::chan_utils::{
    CommitmentTransaction, HolderCommitmentTransaction, build_htlc_transaction,
    get_htlc_redeemscript, make_funding_redeemscript,
};
use lightning::sign::ChannelSigner;
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::{Readable, Writeable};
use longhand_lying_host::scene::*;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::{Rule, Signer};

fn secret(answer: Answer) -> SecretKey {
    let Answer::Secret(secret) = answer else {
        panic!("{answer:?}")
    };
    SecretKey::from_slice(&secret).unwrap()
}

fn signatures(answer: Answer) -> (Signature, Vec<Signature>) {
    let Answer::CommitmentSignatures(signed) = answer else {
        panic!("{answer:?}")
    };
    let read = |bytes: &Vec<u8>| Signature::from_compact(bytes).unwrap();
    (
        read(&signed.signature),
        signed.htlc_signatures.iter().map(read).collect(),
    )
}

fn htlc(amount_msat: u64, incoming: bool) -> Htlc {
    Htlc {
        incoming,
        amount_msat,
        cltv_expiry: 700,
        payment_hash: [amount_msat as u8; 32],
    }
}

#[test]
fn a_channel_lives_through_updates_on_both_sides() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let mut htlcs = Vec::new();
    let mut to_phone_sat = 400_000;
    for step in 1..6 {
        // One comes and one goes in each step, and those of the step before stay.
        let paid = htlc(7_000_000 + 10 * step, false);
        phone.intend(paid.payment_hash, paid.amount_msat);
        htlcs.extend([htlc(5_000_000 + 10 * step, true), paid]);
        to_phone_sat -= 7_001;
        phone
            .ask(sign(&channel.theirs(step, to_phone_sat, &htlcs)))
            .unwrap();
        phone.ask(channel.revocation(step - 1)).unwrap();
        phone
            .ask(validate(&channel.holder(step, to_phone_sat, &htlcs)))
            .unwrap();
        let released = secret(phone.ask(release(step - 1)).unwrap());
        let point = PublicKey::from_secret_key(&channel.secp, &released);
        assert_eq!(point, channel.phone_points[step as usize - 1]);
        phone.restart();
    }
}

#[test]
fn what_is_signed_for_the_peer_is_what_the_peer_verifies() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let paid = htlc(7_000_000, false);
    phone.intend(paid.payment_hash, paid.amount_msat);
    let theirs = channel.theirs(1, 393_000, &[htlc(5_000_000, true), paid]);
    let (signature, htlc_signatures) = signatures(phone.ask(sign(&theirs)).unwrap());

    let ours = channel.parameters.holder_pubkeys.funding_pubkey;
    let funding = make_funding_redeemscript(
        &ours,
        &channel.peer_parameters.holder_pubkeys.funding_pubkey,
    );
    let trusted = theirs.trust();
    let sighash = trusted
        .built_transaction()
        .get_sighash_all(&funding, VALUE_SAT);
    channel
        .secp
        .verify_ecdsa(&sighash, &signature, &ours)
        .unwrap();

    assert_eq!(htlc_signatures.len(), 2);
    for (htlc, signature) in theirs.nondust_htlcs().iter().zip(htlc_signatures) {
        let features = &channel.parameters.channel_type_features;
        let keys = trusted.keys();
        let transaction = build_htlc_transaction(
            &trusted.txid(),
            1000,
            144,
            htlc,
            features,
            &keys.broadcaster_delayed_payment_key,
            &keys.revocation_key,
        );
        let sighash = bitcoin::sighash::SighashCache::new(&transaction)
            .p2wsh_signature_hash(
                0,
                &get_htlc_redeemscript(htlc, features, keys),
                htlc.to_bitcoin_amount(),
                bitcoin::EcdsaSighashType::SinglePlusAnyoneCanPay,
            )
            .unwrap();
        channel
            .secp
            .verify_ecdsa(
                &sighash.into(),
                &signature,
                &keys.countersignatory_htlc_key.to_public_key(),
            )
            .unwrap();
    }
}

#[test]
fn a_channel_whose_htlcs_pay_their_own_fees_is_not_set_up() {
    let mut phone = Phone::new();
    let channel = Channel::of_type(&mut phone, ChannelTypeFeatures::only_static_remote_key());
    assert_eq!(phone.refused(channel.setup()), Rule::SetupType);
}

#[test]
fn asked_again_everything_is_answered_the_same_and_nothing_is_written() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let (ours, theirs) = (
        channel.holder(1, 450_000, &[]),
        channel.theirs(1, 450_000, &[]),
    );
    let ops = [
        validate(&ours),
        release(0),
        sign(&theirs),
        channel.revocation(0),
        channel.setup(),
    ];
    let first: Vec<_> = ops
        .iter()
        .map(|op| phone.ask(op.clone()).unwrap())
        .collect();
    let written = phone.disk.len();
    phone.restart();
    let second: Vec<_> = ops
        .iter()
        .map(|op| phone.ask(op.clone()).unwrap())
        .collect();
    assert_eq!(first, second);
    assert_eq!(phone.disk.len(), written);
}

#[test]
fn the_signature_for_broadcast_is_the_same_every_time() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let ours = channel.holder(0, 400_000, &[]);
    phone.intend_force(&channel);
    let first = phone.ask(sign_holder(&ours)).unwrap();
    phone.restart();
    assert_eq!(phone.ask(sign_holder(&ours)).unwrap(), first);
}

#[test]
fn a_secret_waits_for_a_newer_commitment() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let refusal = phone.ask(release(0)).unwrap_err();
    assert_eq!(
        (rule(&refusal), refusal.retry),
        (Rule::RevokeBeforeValidate, true)
    );
    assert_eq!(phone.refused(release(1)), Rule::RevokeBeforeValidate);
    phone
        .ask(validate(&channel.holder(1, 400_000, &[])))
        .unwrap();
    phone.ask(release(0)).unwrap();
    assert_eq!(phone.refused(release(1)), Rule::RevokeBeforeValidate);
    assert_eq!(phone.signer.refusals().of(Rule::RevokeBeforeValidate), 3);
}

#[test]
fn a_secret_waits_for_valid_signatures() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let good = channel.holder(1, 400_000, &[htlc(5_000_000, true)]);
    let funding = (
        channel.parameters.holder_pubkeys.funding_pubkey,
        channel.peer_parameters.holder_pubkeys.funding_pubkey,
    );
    let with = |signature, htlc_signatures| {
        let commitment = CommitmentTransaction::clone(&good);
        validate(&HolderCommitmentTransaction::new(
            commitment,
            signature,
            htlc_signatures,
            &funding.0,
            &funding.1,
        ))
    };
    let (signature, htlc_signatures) = (good.counterparty_sig, good.counterparty_htlc_sigs.clone());
    assert_eq!(
        phone.refused(with(htlc_signatures[0], htlc_signatures.clone())),
        Rule::HolderSignature
    );
    assert_eq!(
        phone.refused(with(signature, vec![signature])),
        Rule::HolderSignature
    );
    assert_eq!(
        phone.refused(with(signature, vec![])),
        Rule::HolderSignature
    );
    assert_eq!(phone.refused(release(0)), Rule::RevokeBeforeValidate);
    phone.ask(with(signature, htlc_signatures)).unwrap();
    phone.ask(release(0)).unwrap();
}

#[test]
fn holder_commitments_come_in_order_and_only_once() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    assert_eq!(
        phone.refused(validate(&channel.holder(2, 400_000, &[]))),
        Rule::HolderNumber
    );
    assert_eq!(
        phone.refused(validate(&channel.holder(0, 399_999, &[]))),
        Rule::HolderNumber
    );
    phone
        .ask(validate(&channel.holder(1, 400_000, &[])))
        .unwrap();
    phone.ask(release(0)).unwrap();
    assert_eq!(
        phone.refused(validate(&channel.holder(0, 400_000, &[]))),
        Rule::HolderNumber
    );
}

#[test]
fn a_commitment_must_be_what_the_parameters_make_of_it() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    // With another delay the outputs are others.
    let mut other = channel.parameters.clone();
    other
        .counterparty_parameters
        .as_mut()
        .unwrap()
        .selected_contest_delay = 1;
    let point = channel.phone_points[1];
    let build =
        |parameters: &lightning::ln::chan_utils::ChannelTransactionParameters, point, to_phone| {
            let directed = parameters.as_holder_broadcastable();
            channel.signed(CommitmentTransaction::new(
                FIRST - 1,
                &point,
                to_phone,
                1000,
                1,
                vec![],
                &directed,
                &channel.secp,
            ))
        };
    assert_eq!(
        phone.refused(validate(&build(&other, point, 5000))),
        Rule::CommitmentMismatch
    );
    // With another point the owner could not spend.
    let foreign = channel
        .peer
        .get_per_commitment_point(7, &channel.secp)
        .unwrap();
    assert_eq!(
        phone.refused(validate(&build(&channel.parameters, foreign, 5000))),
        Rule::CommitmentMismatch
    );
    // More than the channel holds.
    assert_eq!(
        phone.refused(validate(&build(&channel.parameters, point, VALUE_SAT))),
        Rule::CommitmentMismatch
    );
    // The amount in a field is not the one in the transaction.
    let good = channel.holder(1, 400_000, &[]).encode();
    let (said, real) = (399_999u64.to_be_bytes(), 400_000u64.to_be_bytes());
    let place = good.windows(8).position(|window| window == real).unwrap();
    let mut forged = good.clone();
    forged[place..place + 8].copy_from_slice(&said);
    let forged = ValidateHolderCommitment {
        commitment: forged,
        outbound_preimages: vec![],
    };
    assert_eq!(
        phone.refused(Op::ValidateHolderCommitment(forged)),
        Rule::CommitmentMismatch
    );
}

#[test]
fn an_htlc_cannot_name_an_output_that_is_not_its_own() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let good = channel.theirs(1, 300_000, &[htlc(5_000_000, true)]);
    let index = good.nondust_htlcs()[0].transaction_output_index.unwrap();
    let mut bytes = good.encode();
    // The HTLC's last field: type 8, length 4, index.
    let field = [&[8, 4], &index.to_be_bytes()[..]].concat();
    let place = bytes
        .windows(6)
        .rposition(|window| window == field)
        .unwrap();
    bytes[place + 5] = index as u8 + 1;
    let op = SignCounterpartyCommitment {
        commitment: bytes,
        ..Default::default()
    };
    assert_eq!(
        phone.refused(Op::SignCounterpartyCommitment(op)),
        Rule::CommitmentMismatch
    );
}

#[test]
fn a_number_is_signed_for_the_peer_only_once() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    phone.ask(sign(&channel.theirs(1, 400_000, &[]))).unwrap();
    assert_eq!(
        phone.refused(sign(&channel.theirs(1, 399_999, &[]))),
        Rule::CounterpartyNumber
    );
    phone.restart();
    assert_eq!(
        phone.refused(sign(&channel.theirs(1, 399_999, &[]))),
        Rule::CounterpartyNumber
    );
    phone.ask(sign(&channel.theirs(1, 400_000, &[]))).unwrap();
}

#[test]
fn the_peer_gets_no_third_commitment_and_no_skipped_one() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    phone.ask(sign(&channel.theirs(1, 400_000, &[]))).unwrap();
    let refusal = phone
        .ask(sign(&channel.theirs(2, 400_000, &[])))
        .unwrap_err();
    assert_eq!(
        (rule(&refusal), refusal.retry),
        (Rule::CounterpartyUnrevoked, true)
    );
    phone.ask(channel.revocation(0)).unwrap();
    assert_eq!(
        phone.refused(sign(&channel.theirs(3, 400_000, &[]))),
        Rule::CounterpartyNumber
    );
    phone.ask(sign(&channel.theirs(2, 400_000, &[]))).unwrap();
    assert_eq!(
        phone.refused(sign(&channel.theirs(0, 400_000, &[]))),
        Rule::CounterpartyNumber
    );
}

#[test]
fn revocations_come_in_order_with_the_right_secret() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    assert_eq!(phone.refused(channel.revocation(0)), Rule::RevocationOrder);
    phone.ask(sign(&channel.theirs(1, 400_000, &[]))).unwrap();
    assert_eq!(phone.refused(channel.revocation(1)), Rule::RevocationOrder);
    let wrong = |secret: Vec<u8>| {
        Op::CounterpartyRevocation(CounterpartyRevocation {
            index: FIRST,
            secret,
        })
    };
    assert_eq!(phone.refused(wrong(vec![1; 32])), Rule::RevocationSecret);
    assert_eq!(phone.refused(wrong(vec![0; 32])), Rule::RevocationSecret);
    assert_eq!(phone.refused(wrong(vec![])), Rule::RevocationSecret);
    phone.ask(channel.revocation(0)).unwrap();
    assert_eq!(phone.refused(wrong(vec![1; 32])), Rule::RevocationSecret);
}

#[test]
fn a_revoked_commitment_is_never_signed() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let (old, new) = (
        channel.holder(0, 400_000, &[]),
        channel.holder(1, 410_000, &[]),
    );
    phone.ask(validate(&new)).unwrap();
    phone.ask(release(0)).unwrap();
    assert_eq!(phone.refused(sign_holder(&old)), Rule::SignRevoked);
    phone.restart();
    assert_eq!(phone.refused(sign_holder(&old)), Rule::SignRevoked);
    assert_eq!(
        phone.refused(sign_holder(&channel.holder(1, 380_000, &[]))),
        Rule::SignRevoked
    );
    phone.intend_force(&channel);
    phone.ask(sign_holder(&new)).unwrap();
}

#[test]
fn what_was_signed_for_broadcast_is_never_revoked() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let (first, next) = (
        channel.holder(0, 400_000, &[]),
        channel.holder(1, 400_000, &[]),
    );
    phone.ask(validate(&next)).unwrap();
    phone.intend_force(&channel);
    phone.ask(sign_holder(&first)).unwrap();
    assert_eq!(phone.refused(release(0)), Rule::RevokeSigned);
    phone.restart();
    assert_eq!(phone.refused(release(0)), Rule::RevokeSigned);
}

#[test]
fn a_channel_is_set_up_once_with_the_phones_own_keys() {
    let mut phone = Phone::new();
    let channel = Channel::new(&mut phone);
    let with = |parameters: &_| channel.setup_with(parameters);
    assert_eq!(
        phone.refused(sign(&channel.theirs(0, 1, &[]))),
        Rule::UnknownChannel
    );

    let mut foreign = channel.parameters.clone();
    foreign.holder_pubkeys.htlc_basepoint = channel.peer_parameters.holder_pubkeys.htlc_basepoint;
    assert_eq!(phone.refused(with(&foreign)), Rule::SetupKeys);
    // A peer with a key of the phone's: the peer's commitments would be the phone's own, and one be signed as the other.
    let mut mirrored = channel.parameters.clone();
    let peer = mirrored.counterparty_parameters.as_mut().unwrap();
    peer.pubkeys.funding_pubkey = channel.parameters.holder_pubkeys.funding_pubkey;
    assert_eq!(phone.refused(with(&mirrored)), Rule::SetupKeys);
    let mut crossed = channel.parameters.clone();
    let peer = crossed.counterparty_parameters.as_mut().unwrap();
    peer.pubkeys.payment_point = channel.parameters.holder_pubkeys.htlc_basepoint.0;
    assert_eq!(phone.refused(with(&crossed)), Rule::SetupKeys);
    let mut unfunded = channel.parameters.clone();
    unfunded.funding_outpoint = None;
    assert_eq!(phone.refused(with(&unfunded)), Rule::Malformed);
    let mut spliced = channel.parameters.clone();
    spliced.splice_parent_funding_txid = Some(channel.parameters.funding_outpoint.unwrap().txid);
    assert_eq!(phone.refused(with(&spliced)), Rule::SetupType);

    phone.ask(channel.setup()).unwrap();
    let mut shorter = channel.parameters.clone();
    shorter.holder_selected_contest_delay = 6;
    assert_eq!(phone.refused(with(&shorter)), Rule::SetupChanged);
    phone.ask(channel.setup()).unwrap();
}

#[test]
fn delays_leave_the_owner_its_money_in_time_and_the_phone_time_to_sleep() {
    let mut phone = Phone::new();
    let channel = Channel::new(&mut phone);
    for (own, peers, is_safe) in [
        (2_017, 144, false),
        (65_535, 144, false),
        (2_016, 143, false),
        (2_016, 0, false),
        (2_016, 144, true),
    ] {
        let mut parameters = channel.parameters.clone();
        parameters.holder_selected_contest_delay = peers;
        let theirs = parameters.counterparty_parameters.as_mut().unwrap();
        theirs.selected_contest_delay = own;
        let answer = phone.ask(channel.setup_with(&parameters));
        let refused = answer.as_ref().err().map(rule);
        let expected = (!is_safe).then_some(Rule::SetupDelay);
        assert_eq!(refused, expected, "{own}, {peers}");
    }
}

#[test]
fn two_channels_never_share_a_funding_output() {
    let mut phone = Phone::new();
    let first = Channel::open(&mut phone);
    let new = NewChannelKeys {
        channel_keys_id: vec![7; 32],
        points: 2,
    };
    let Ok(Answer::NewChannelKeys(keys)) = phone.ask_on(&[], Op::NewChannelKeys(new)) else {
        panic!()
    };
    let mut second = first.parameters.clone();
    second.holder_pubkeys = Readable::read(&mut &keys.public_keys[..]).unwrap();
    let id = keys.channel_keys_id;
    let refused = phone.ask_on(&id, first.setup_with(&second)).unwrap_err();
    assert_eq!(rule(&refused), Rule::SetupOutpoint);
    second.funding_outpoint.as_mut().unwrap().index += 1;
    phone.ask_on(&id, first.setup_with(&second)).unwrap();
    // Again, as after a restart of the node.
    phone.ask_on(&id, first.setup_with(&second)).unwrap();
    phone.ask(first.setup()).unwrap();
}

#[test]
fn points_are_those_of_the_secrets_and_bounded() {
    let mut phone = Phone::new();
    let points = |first_index, count| Op::GetPoints(GetPoints { first_index, count });
    let Ok(Answer::Points(some)) = phone.ask(points(FIRST, 3)) else {
        panic!()
    };
    let Ok(Answer::Points(last)) = phone.ask(points(FIRST - 2, 1)) else {
        panic!()
    };
    assert_eq!(some.points[2], last.points[0]);
    let Ok(Answer::Points(end)) = phone.ask(points(0, 1)) else {
        panic!()
    };
    assert_eq!(end.points.len(), 1);
    assert_eq!(phone.refused(points(0, 2)), Rule::Malformed);
    assert_eq!(phone.refused(points(FIRST + 1, 1)), Rule::Malformed);
    assert_eq!(phone.refused(points(FIRST, u32::MAX)), Rule::Malformed);
}

#[test]
fn the_revocation_key_is_given_with_the_setup_or_never() {
    for (withhold, hub, is_given) in [
        ("hub", None, true),
        ("hub", Some(()), false),
        ("none", Some(()), true),
        ("all", None, false),
    ] {
        let mut phone = Phone::new();
        let channel = Channel::new(&mut phone);
        phone.limit("withhold", withhold);
        phone.limit("shortest_hub_delay_blocks", "144");
        phone.restart();
        phone.signer.set_hub(hub.map(|()| channel.peer_node_id()));
        let mut secret = || {
            let Ok(Answer::Setup(setup)) = phone.ask(channel.setup()) else {
                panic!()
            };
            setup.revocation_basepoint_secret
        };
        let given = secret();
        assert_eq!(given.len(), if is_given { 32 } else { 0 }, "{withhold}");
        assert_eq!(secret(), given);

        // Whatever the owner changes later: a key that was withheld stays on the phone, and so does another answer.
        phone.limit("withhold", "none");
        phone.restart();
        let Ok(Answer::Setup(setup)) = phone.ask(channel.setup()) else {
            panic!()
        };
        assert_eq!(setup.revocation_basepoint_secret, given);
    }
}

#[test]
fn a_phone_that_lost_its_ledger_begins_no_old_channel_again() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let first = channel.holder(0, 400_000, &[]);
    phone
        .ask(validate(&channel.holder(1, 400_000, &[])))
        .unwrap();
    phone.ask(release(0)).unwrap();
    assert_eq!(phone.refused(sign_holder(&first)), Rule::SignRevoked);

    // The words are all that is left. The host asks for the channel's keys once more, as it likes, and sets it up.
    let mut restored = Phone::new();
    restored.signer = Signer::new(&seed(), Network::Regtest, &[5; 32]).unwrap();
    let asked = |phone: &mut Phone| {
        let new = NewChannelKeys {
            channel_keys_id: KEYS_ID.to_vec(),
            points: 1,
        };
        match phone.ask_on(&[], Op::NewChannelKeys(new)) {
            Ok(Answer::NewChannelKeys(keys)) => keys.channel_keys_id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(&mut phone), KEYS_ID, "the same again");
    assert_ne!(asked(&mut restored), KEYS_ID);
    assert_eq!(restored.refused(channel.setup()), Rule::SetupLedger);
    assert_eq!(restored.refused(validate(&first)), Rule::UnknownChannel);
    assert_eq!(restored.refused(sign_holder(&first)), Rule::UnknownChannel);
}
