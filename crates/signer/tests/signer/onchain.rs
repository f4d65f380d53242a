//! On-chain signatures of the phone: only its own inputs, and only to scripts where the owner's money may be sent.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, XOnlyPublicKey};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, EcdsaSighashType, OutPoint, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn,
    TxOut, Txid, Witness,
};
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::ln::chan_utils::{
    ClosingTransaction, CommitmentTransaction, HTLCOutputInCommitment, TxCreationKeys,
    build_htlc_transaction, get_countersigner_payment_script, get_htlc_redeemscript,
    get_keyed_anchor_redeemscript, get_revokeable_redeemscript, make_funding_redeemscript,
};
use lightning::sign::{
    ChannelDerivationParameters, ChannelSigner, DelayedPaymentOutputDescriptor, HTLCDescriptor,
    SpendableOutputDescriptor, StaticPaymentOutputDescriptor,
};
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::Writeable;
use longhand_lying_host::scene::*;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::{Account, Keychain, Rule};

/// The fingerprint of the test seed's master key.
const MASTER: [u8; 4] = [0x73, 0xc5, 0xda, 0x0a];

fn outpoint(byte: u8) -> OutPoint {
    OutPoint {
        txid: Txid::from_byte_array([byte; 32]),
        vout: 1,
    }
}

fn spending(inputs: &[OutPoint], outputs: Vec<TxOut>) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs,
    }
}

/// A PSBT that spends address `index` of an account of the phone's.
fn spend_own(phone: &Phone, account: Account, index: u32, outputs: Vec<TxOut>) -> Psbt {
    let script_pubkey = phone
        .signer
        .keys()
        .script(account, Keychain::External, index)
        .unwrap();
    let paid = TxOut {
        value: Amount::from_sat(2_000_000),
        script_pubkey,
    };
    let previous = spending(&[outpoint(1)], vec![paid.clone()]);
    let spent = OutPoint::new(previous.compute_txid(), 0);
    let mut psbt = Psbt::from_unsigned_tx(spending(&[spent], outputs)).unwrap();
    psbt.inputs[0].witness_utxo = Some(paid);
    psbt.inputs[0].non_witness_utxo = (account == Account::Bip84).then_some(previous);
    let purpose = if account == Account::Bip84 { 84 } else { 86 };
    let path: DerivationPath = format!("m/{purpose}'/1'/0'/0/{index}").parse().unwrap();
    let source = (Fingerprint::from(MASTER), path);
    let any_key = PublicKey::from_secret_key_global(&[1u8; 32]);
    match account {
        Account::Bip84 => psbt.inputs[0]
            .bip32_derivation
            .insert(any_key, source)
            .map(|_| ()),
        Account::Bip86 => {
            let key = XOnlyPublicKey::from(any_key);
            psbt.inputs[0]
                .tap_key_origins
                .insert(key, (vec![], source))
                .map(|_| ())
        }
    };
    psbt
}

trait FromSecretGlobal {
    fn from_secret_key_global(secret: &[u8; 32]) -> PublicKey;
}
impl FromSecretGlobal for PublicKey {
    fn from_secret_key_global(secret: &[u8; 32]) -> PublicKey {
        bitcoin::secp256k1::SecretKey::from_slice(secret)
            .unwrap()
            .public_key(&Secp256k1::new())
    }
}

fn sign_psbt(psbt: &Psbt, purpose: Purpose) -> Op {
    Op::SignPsbt(SignPsbt {
        psbt: psbt.serialize(),
        purpose: purpose.into(),
    })
}

fn signed(answer: Answer) -> Psbt {
    let Answer::Psbt(bytes) = answer else {
        panic!("{answer:?}")
    };
    Psbt::deserialize(&bytes).unwrap()
}

fn signature(answer: Answer) -> Signature {
    let Answer::Signature(bytes) = answer else {
        panic!("{answer:?}")
    };
    Signature::from_compact(&bytes).unwrap()
}

fn somewhere() -> Vec<TxOut> {
    vec![TxOut {
        value: Amount::from_sat(1_900_000),
        script_pubkey: ScriptBuf::new_p2wpkh(&Hash::all_zeros()),
    }]
}

/// The owner asks for a payment of this amount (0 = all) to [`somewhere`].
fn ask_to_send(phone: &mut Phone, id: u8, amount_sat: u64, max_fee_sat: u64) {
    let script = &somewhere()[0].script_pubkey;
    let address = bitcoin::Address::from_script(script, bitcoin::Network::Regtest).unwrap();
    let address = address.to_string();
    let asked = phone
        .signer
        .add_onchain_intent(&[id], &address, amount_sat, max_fee_sat, 1);
    phone.keep(&asked.unwrap().records);
}

fn delivered(phone: &mut Phone, id: u8) {
    let recorded = phone.signer.result_delivered(&[id]).unwrap();
    phone.keep(&recorded.records);
}

/// Checks a P2WSH signature with SIGHASH_ALL.
fn check(
    tx: &Transaction,
    input: usize,
    script: &ScriptBuf,
    sat: u64,
    signature: Signature,
    key: &PublicKey,
) {
    let sighash = SighashCache::new(tx)
        .p2wsh_signature_hash(input, script, Amount::from_sat(sat), EcdsaSighashType::All)
        .unwrap();
    Secp256k1::new()
        .verify_ecdsa(&Message::from(sighash), &signature, key)
        .unwrap();
}

#[test]
fn a_segwit_input_is_signed_and_finalized() {
    let mut phone = Phone::new();
    let psbt = spend_own(&phone, Account::Bip84, 5, somewhere());
    ask_to_send(&mut phone, 1, 1_900_000, 100_000);
    let answer = phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
    assert_eq!(
        phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap(),
        answer,
        "the same every time"
    );
    let done = signed(answer);
    let witness = done.inputs[0].final_script_witness.clone().unwrap();
    let signature = bitcoin::ecdsa::Signature::from_slice(&witness[0]).unwrap();
    let key = bitcoin::CompressedPublicKey::from_slice(&witness[1]).unwrap();
    let prevout = psbt.inputs[0].witness_utxo.clone().unwrap();
    assert_eq!(
        ScriptBuf::new_p2wpkh(&key.wpubkey_hash()),
        prevout.script_pubkey
    );
    let sighash = SighashCache::new(&done.unsigned_tx)
        .p2wpkh_signature_hash(
            0,
            &prevout.script_pubkey,
            prevout.value,
            EcdsaSighashType::All,
        )
        .unwrap();
    Secp256k1::new()
        .verify_ecdsa(&sighash.into(), &signature.signature, &key.0)
        .unwrap();
}

#[test]
fn a_taproot_input_is_signed_and_finalized() {
    let mut phone = Phone::new();
    let psbt = spend_own(&phone, Account::Bip86, 5, somewhere());
    ask_to_send(&mut phone, 1, 1_900_000, 100_000);
    let answer = phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
    assert_eq!(
        phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap(),
        answer,
        "the same every time"
    );
    let done = signed(answer);
    let witness = done.inputs[0].final_script_witness.clone().unwrap();
    let signature = bitcoin::taproot::Signature::from_slice(&witness[0]).unwrap();
    let prevout = psbt.inputs[0].witness_utxo.clone().unwrap();
    let output_key = XOnlyPublicKey::from_slice(&prevout.script_pubkey.as_bytes()[2..]).unwrap();
    let sighash = SighashCache::new(&done.unsigned_tx)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&[prevout]), TapSighashType::Default)
        .unwrap();
    Secp256k1::new()
        .verify_schnorr(&signature.signature, &sighash.into(), &output_key)
        .unwrap();
}

#[test]
fn inputs_that_are_not_the_phones_are_not_signed() {
    let mut phone = Phone::new();
    let refused = |phone: &mut Phone, psbt: &Psbt| phone.refused(sign_psbt(psbt, Purpose::Send));
    let good = spend_own(&phone, Account::Bip84, 0, somewhere());

    let mut foreign = good.clone();
    foreign.inputs[0]
        .bip32_derivation
        .values_mut()
        .for_each(|source| source.0 = Fingerprint::from([1; 4]));
    assert_eq!(refused(&mut phone, &foreign), Rule::NotOurInput);
    // A path of the master that is no address: LDK's keys are derived there.
    let mut deeper = good.clone();
    deeper.inputs[0]
        .bip32_derivation
        .values_mut()
        .for_each(|source| source.1 = "m/0'".parse().unwrap());
    assert_eq!(refused(&mut phone, &deeper), Rule::NotOurInput);
    let mut other_script = good.clone();
    other_script.inputs[0].non_witness_utxo = None;
    other_script.inputs[0]
        .witness_utxo
        .as_mut()
        .unwrap()
        .script_pubkey = somewhere()[0].script_pubkey.clone();
    assert_eq!(refused(&mut phone, &other_script), Rule::NotOurInput);
    let mut open_ended = good.clone();
    open_ended.inputs[0].sighash_type = Some(EcdsaSighashType::NonePlusAnyoneCanPay.into());
    assert_eq!(refused(&mut phone, &open_ended), Rule::NotOurInput);
    let mut contradicts = good.clone();
    contradicts.inputs[0].non_witness_utxo = Some(spending(&[outpoint(9)], somewhere()));
    assert_eq!(refused(&mut phone, &contradicts), Rule::NotOurInput);
    assert_eq!(
        phone.refused(sign_psbt(&good, Purpose::Unknown)),
        Rule::Malformed
    );
}

/// An output back to the owner, with its place in the PSBT.
fn add_change(phone: &Phone, psbt: &mut Psbt, sat: u64, index: u32) {
    let keys = phone.signer.keys();
    let script_pubkey = keys
        .script(Account::Bip84, Keychain::Internal, index)
        .unwrap();
    psbt.unsigned_tx.output.push(TxOut {
        value: Amount::from_sat(sat),
        script_pubkey,
    });
    let path: DerivationPath = format!("m/84'/1'/0'/1/{index}").parse().unwrap();
    let known = bitcoin::psbt::Output {
        bip32_derivation: [(
            PublicKey::from_secret_key_global(&[1; 32]),
            (Fingerprint::from(MASTER), path),
        )]
        .into(),
        ..Default::default()
    };
    psbt.outputs.push(known);
}

fn refused_send(phone: &mut Phone, psbt: &Psbt) -> Rule {
    phone.refused(sign_psbt(psbt, Purpose::Send))
}

#[test]
fn a_payment_that_the_owner_did_not_ask_for_is_not_signed() {
    let mut phone = Phone::new();
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    assert_eq!(refused_send(&mut phone, &psbt), Rule::SendUnasked);
    ask_to_send(&mut phone, 1, 1_899_999, 200_000);
    assert_eq!(refused_send(&mut phone, &psbt), Rule::SendUnasked);
    ask_to_send(&mut phone, 2, 1_900_000, 100_000);
    phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
}

#[test]
fn a_payment_may_have_change_of_the_owners_and_no_other_output() {
    let mut phone = Phone::new();
    ask_to_send(&mut phone, 1, 1_900_000, 20_000);
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    let mut with_change = psbt.clone();
    add_change(&phone, &mut with_change, 90_000, 7);
    let mut stolen = with_change.clone();
    stolen.unsigned_tx.output[1].script_pubkey = ScriptBuf::new_p2wsh(&Hash::all_zeros());
    assert_eq!(refused_send(&mut phone, &stolen), Rule::SendUnasked);
    let mut lost = psbt.clone();
    add_change(&phone, &mut lost, 90_000, 1 << 20);
    assert_eq!(refused_send(&mut phone, &lost), Rule::SendUnasked);
    phone
        .ask_on(&[], sign_psbt(&with_change, Purpose::Send))
        .unwrap();
}

#[test]
fn a_payment_costs_no_more_than_its_limit() {
    let mut phone = Phone::new();
    // Five percent of the amount are 95,000 sat.
    ask_to_send(&mut phone, 1, 1_900_000, 20_000);
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    assert_eq!(refused_send(&mut phone, &psbt), Rule::SendUnasked);
    ask_to_send(&mut phone, 1, 1_900_000, 100_000);
    phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
}

#[test]
fn a_payment_of_many_coins_may_cost_more_in_proportion() {
    let mut phone = Phone::new();
    ask_to_send(&mut phone, 1, 0, 20_000);
    // 100 coins of 2,000,000 sat, of which one per mille is the fee.
    let one = spend_own(&phone, Account::Bip86, 0, somewhere());
    let mut many = one.clone();
    for _ in 1..100 {
        many.unsigned_tx
            .input
            .push(one.unsigned_tx.input[0].clone());
        many.inputs.push(one.inputs[0].clone());
    }
    for (index, input) in many.unsigned_tx.input.iter_mut().enumerate() {
        input.previous_output.vout = u32::try_from(index).unwrap();
    }
    let output = &mut many.unsigned_tx.output[0];
    output.value = Amount::from_sat(200_000_000 / 100 * 94);
    assert_eq!(
        refused_send(&mut phone, &many),
        Rule::SendUnasked,
        "6 % are too much"
    );
    let weight = many.unsigned_tx.weight().to_wu() + 100 * 112;
    let allowed = 20_000 * weight / 10_000;
    many.unsigned_tx.output[0].value = Amount::from_sat(200_000_000 - allowed);
    phone.ask_on(&[], sign_psbt(&many, Purpose::Send)).unwrap();
}

#[test]
fn a_payment_of_an_exact_amount_is_not_taken_for_one_of_all() {
    let mut phone = Phone::new();
    ask_to_send(&mut phone, 1, 0, 200_000);
    ask_to_send(&mut phone, 2, 1_900_000, 200_000);
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
    let mut intents = phone.signer.onchain_intents();
    let signed = intents.find(|intent| intent.spends.is_some()).unwrap();
    assert_eq!(signed.id, [2]);
}

#[test]
fn all_transactions_for_one_payment_spend_a_common_output() {
    let mut phone = Phone::new();
    ask_to_send(&mut phone, 1, 0, 200_000);
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
    // From another address of the owner's: it would pay a second time.
    let second = spend_own(&phone, Account::Bip84, 1, somewhere());
    assert_eq!(refused_send(&mut phone, &second), Rule::SendUnasked);
    let mut replacement = psbt.clone();
    replacement.unsigned_tx.output[0].value = Amount::from_sat(1_850_000);
    phone
        .ask_on(&[], sign_psbt(&replacement, Purpose::Send))
        .unwrap();
    // Also once the owner has the result.
    delivered(&mut phone, 1);
    phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
    assert_eq!(refused_send(&mut phone, &second), Rule::SendUnasked);
}

#[test]
fn a_payment_that_was_given_up_may_go_back_to_the_owner() {
    let mut phone = Phone::new();
    ask_to_send(&mut phone, 1, 1_900_000, 100_000);
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    phone.ask_on(&[], sign_psbt(&psbt, Purpose::Send)).unwrap();
    let mut back = psbt.clone();
    back.unsigned_tx.output.clear();
    back.outputs.clear();
    add_change(&phone, &mut back, 1_950_000, 3);
    assert_eq!(refused_send(&mut phone, &back), Rule::SendUnasked);
    let allowed = phone.signer.allow_replacement(&[1], 0, true).unwrap();
    phone.keep(&allowed.records);
    phone.ask_on(&[], sign_psbt(&back, Purpose::Send)).unwrap();
    let mut stolen = back.clone();
    stolen.unsigned_tx.output[0].script_pubkey = ScriptBuf::new_p2wsh(&Hash::all_zeros());
    assert_eq!(refused_send(&mut phone, &stolen), Rule::SendUnasked);
    let unknown = phone.signer.allow_replacement(&[2], 0, true).unwrap_err();
    assert_eq!(unknown.rule, Rule::SendUnasked);
}

#[test]
fn a_payment_whose_result_was_delivered_unsigned_is_over() {
    let mut phone = Phone::new();
    ask_to_send(&mut phone, 1, 1_900_000, 100_000);
    delivered(&mut phone, 1);
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    assert_eq!(refused_send(&mut phone, &psbt), Rule::SendUnasked);
}

/// A channel whose funding transaction spends the phone's own output.
fn funded(phone: &mut Phone) -> (Channel, Psbt) {
    let draft = Channel::new(phone);
    let ours = draft.parameters.holder_pubkeys.funding_pubkey;
    let theirs = draft.peer_parameters.holder_pubkeys.funding_pubkey;
    let script_pubkey = make_funding_redeemscript(&ours, &theirs).to_p2wsh();
    let output = TxOut {
        value: Amount::from_sat(VALUE_SAT),
        script_pubkey,
    };
    let mut psbt = spend_own(phone, Account::Bip84, 0, vec![output]);
    add_change(phone, &mut psbt, 980_000, 7);
    let funding = LdkOutPoint {
        txid: psbt.unsigned_tx.compute_txid(),
        index: 0,
    };
    (funded_by(phone, funding), psbt)
}

/// A channel that the owner has asked for, with this funding.
fn funded_by(phone: &mut Phone, funding: LdkOutPoint) -> Channel {
    let features = ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies();
    let mut channel = Channel::funded_by(phone, features, funding);
    channel.fund();
    phone.intend_opening(&channel);
    channel
}

#[test]
fn a_channel_is_funded_only_after_its_first_commitment() {
    let mut phone = Phone::new();
    let (channel, psbt) = funded(&mut phone);
    assert_eq!(
        phone.refused(sign_psbt(&psbt, Purpose::Funding)),
        Rule::UnknownChannel
    );
    phone.ask(channel.setup()).unwrap();
    phone
        .ask(sign(&channel.theirs_at(0, 1000, FUNDER_SAT, 0)))
        .unwrap();
    let refusal = phone.ask(sign_psbt(&psbt, Purpose::Funding)).unwrap_err();
    assert_eq!(
        (rule(&refusal), refusal.retry),
        (Rule::FundingBeforeValidate, true)
    );
    // Nor for another purpose.
    assert_eq!(
        phone.refused(sign_psbt(&psbt, Purpose::Send)),
        Rule::FundingBeforeValidate
    );
    phone.ask(first(&channel)).unwrap();
    phone.ask(sign_psbt(&psbt, Purpose::Funding)).unwrap();
}

/// The first commitment of a channel that the owner funds.
fn first(channel: &Channel) -> Op {
    validate(&channel.holder_at(0, 1000, FUNDER_SAT, 0))
}

#[test]
fn a_channel_that_the_owner_did_not_ask_for_is_not_set_up() {
    let mut phone = Phone::new();
    let (channel, _) = funded(&mut phone);
    let mut other = channel.parameters.clone();
    other.channel_value_satoshis += 1;
    assert_eq!(
        phone.refused(channel.setup_with(&other)),
        Rule::SetupUnasked
    );
    let Op::SetupChannel(good) = channel.setup() else {
        panic!("another operation")
    };
    for setup in [
        SetupChannel {
            opening_id: vec![9; 16],
            ..good.clone()
        },
        SetupChannel {
            opening_id: Vec::new(),
            ..good.clone()
        },
        SetupChannel {
            counterparty_node_id: outpoint_key().serialize().to_vec(),
            ..good.clone()
        },
    ] {
        assert_eq!(phone.refused(Op::SetupChannel(setup)), Rule::SetupUnasked);
    }
    let ended = phone.signer.result_delivered(&OPENING).unwrap();
    phone.keep(&ended.records);
    assert_eq!(phone.refused(channel.setup()), Rule::SetupUnasked);
}

fn outpoint_key() -> PublicKey {
    PublicKey::from_secret_key_global(&[1; 32])
}

#[test]
fn peers_open_channels_as_the_owner_allows() {
    let mut phone = Phone::new();
    let channel = Channel::new(&mut phone);
    let allow = |inbound: &str, phone: &mut Phone| {
        phone.limit("inbound", inbound);
        phone.restart();
    };
    let id = |key: PublicKey| key.to_string();
    for refused in ["hub".to_owned(), id(outpoint_key())] {
        allow(&refused, &mut phone);
        assert_eq!(phone.refused(channel.setup()), Rule::SetupUnasked);
    }
    allow(&id(channel.peer_node_id()), &mut phone);
    phone.ask(channel.setup()).unwrap();
}

#[test]
fn a_channel_has_a_largest_size() {
    let mut phone = Phone::new();
    let channel = Channel::new(&mut phone);
    phone.limit("channel_sat", "999999");
    assert_eq!(phone.refused(channel.setup()), Rule::SetupSize);
}

#[test]
fn a_funding_pays_nobody_else_and_is_signed_for_one_set_of_inputs() {
    let mut phone = Phone::new();
    let (channel, psbt) = funded(&mut phone);
    let fund = |phone: &mut Phone, psbt: &Psbt| {
        let txid = psbt.unsigned_tx.compute_txid();
        let channel = funded_by(phone, LdkOutPoint { txid, index: 0 });
        phone.ask(channel.setup()).unwrap();
        phone.ask(first(&channel)).unwrap();
        let op = sign_psbt(psbt, Purpose::Funding);
        phone.ask(op).map_err(|no| rule(&no))
    };
    drop(channel);

    let mut stolen = psbt.clone();
    stolen.unsigned_tx.output[1].script_pubkey = somewhere()[0].script_pubkey.clone();
    let mut thief = Phone::new();
    assert_eq!(fund(&mut thief, &stolen), Err(Rule::FundingUnasked));

    // A half of the coin would be the miner's; the owner's limit is the usual one.
    let mut dear = psbt.clone();
    dear.unsigned_tx.output.truncate(1);
    dear.outputs.truncate(1);
    let mut payer = Phone::new();
    assert_eq!(fund(&mut payer, &dear), Err(Rule::FundingUnasked));

    assert!(fund(&mut phone, &psbt).is_ok());
    // The same coin again is the same channel; another coin would make a second one.
    phone.restart();
    let outputs = psbt.unsigned_tx.output[..1].to_vec();
    let mut other = spend_own(&phone, Account::Bip84, 1, outputs);
    add_change(&phone, &mut other, 980_000, 8);
    assert_eq!(fund_again(&mut phone, &other), Err(Rule::SetupChanged));
}

/// Tries to set the same channel up with another funding.
fn fund_again(phone: &mut Phone, psbt: &Psbt) -> Result<Answer, Rule> {
    let txid = psbt.unsigned_tx.compute_txid();
    let channel = funded_by(phone, LdkOutPoint { txid, index: 0 });
    phone.ask(channel.setup()).map_err(|no| rule(&no))
}

#[test]
fn paying_the_fee_of_a_close_pays_nobody_else() {
    let mut phone = Phone::new();
    let psbt = spend_own(&phone, Account::Bip84, 0, somewhere());
    let refused = phone.refused(sign_psbt(&psbt, Purpose::Bump));
    assert_eq!(refused, Rule::BumpOutput);
    let mut dear = spend_own(&phone, Account::Bip84, 0, vec![]);
    add_change(&phone, &mut dear, 1_949_999, 7);
    phone.accelerate(dear.unsigned_tx.input[0].previous_output.txid);
    let refused = phone.refused(sign_psbt(&dear, Purpose::Bump));
    assert_eq!(refused, Rule::CloseFee);
    let mut good = spend_own(&phone, Account::Bip84, 0, vec![]);
    add_change(&phone, &mut good, 1_950_000, 7);
    phone.ask(sign_psbt(&good, Purpose::Bump)).unwrap();
}

#[test]
fn a_fee_is_paid_for_a_transaction_that_the_owner_named_and_for_the_latest_of_these_alone() {
    let mut phone = Phone::new();
    let mut child = spend_own(&phone, Account::Bip84, 0, vec![]);
    add_change(&phone, &mut child, 1_990_000, 7);
    let bump = || sign_psbt(&child, Purpose::Bump);
    assert_eq!(phone.refused(bump()), Rule::BumpUnasked);
    let parent = child.unsigned_tx.input[0].previous_output.txid;
    phone.accelerate(parent);
    phone.restart();
    phone.ask(bump()).unwrap();

    for byte in 0..64 {
        phone.accelerate(bitcoin::Txid::from_byte_array([byte; 32]));
    }
    assert_eq!(phone.refused(bump()), Rule::BumpUnasked);
}

#[test]
fn a_funding_transaction_must_fund_that_channel() {
    let mut phone = Phone::new();
    let (channel, _) = funded(&mut phone);
    phone.ask(channel.setup()).unwrap();
    phone.ask(first(&channel)).unwrap();
    let elsewhere = spend_own(&phone, Account::Bip84, 0, somewhere());
    assert_eq!(
        phone.refused(sign_psbt(&elsewhere, Purpose::Funding)),
        Rule::FundingOutput
    );
}

#[test]
fn a_funding_transaction_keeps_its_txid() {
    // The peer has signed the first commitment, which spends the unsigned transaction's txid. With an input that takes
    // a scriptSig the transaction would confirm under another one, and the channel would have no commitment at all.
    let mut phone = Phone::new();
    let fund = |phone: &mut Phone, psbt: &Psbt| {
        let txid = psbt.unsigned_tx.compute_txid();
        let channel = funded_by(phone, LdkOutPoint { txid, index: 0 });
        phone.ask(channel.setup()).unwrap();
        phone.ask(first(&channel)).unwrap();
        [Purpose::Funding, Purpose::Send]
            .map(|purpose| phone.ask(sign_psbt(psbt, purpose)).map_err(|no| rule(&no)))
    };
    let refused = [(); 2].map(|()| Err(Rule::NotOurInput));

    let (_, good) = funded(&mut phone);
    let mut with_foreign = good.clone();
    with_foreign.unsigned_tx.input.push(TxIn {
        previous_output: outpoint(9),
        ..good.unsigned_tx.input[0].clone()
    });
    with_foreign.inputs.push(Default::default());
    assert_eq!(fund(&mut phone, &with_foreign), refused);

    // The output that it spends is not proved: it may be P2SH around the phone's key, and the signature valid for it.
    let mut phone = Phone::new();
    let (_, mut unproved) = funded(&mut phone);
    unproved.inputs[0].non_witness_utxo = None;
    assert_eq!(fund(&mut phone, &unproved), refused);
}

fn own_script(phone: &Phone, index: u32) -> ScriptBuf {
    phone.signer.own_script(Keychain::External, index).unwrap()
}

#[test]
fn a_close_pays_the_owner() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let funding = channel
        .parameters
        .funding_outpoint
        .unwrap()
        .into_bitcoin_outpoint();
    let theirs = ScriptBuf::new_p2wpkh(&Hash::all_zeros());
    let close = |to_holder_sat, script: &ScriptBuf, to_holder_index| SignClosing {
        to_holder_sat,
        to_counterparty_sat: 500_000,
        to_holder_script: script.to_bytes(),
        to_counterparty_script: theirs.to_bytes(),
        funding_outpoint: serialize(&funding),
        to_holder_keychain: 0,
        to_holder_index,
    };
    // Beyond the search, found by the hint; within it, found without.
    for (index, hint) in [(5_000, 5_000), (3, 0)] {
        let script = own_script(&phone, index);
        let signature = signature(
            phone
                .ask(Op::SignClosing(close(490_000, &script, hint)))
                .unwrap(),
        );
        let closing = ClosingTransaction::new(490_000, 500_000, script, theirs.clone(), funding);
        let ours = channel.parameters.holder_pubkeys.funding_pubkey;
        let redeem = make_funding_redeemscript(
            &ours,
            &channel.peer_parameters.holder_pubkeys.funding_pubkey,
        );
        check(
            closing.trust().built_transaction(),
            0,
            &redeem,
            VALUE_SAT,
            signature,
            &ours,
        );
    }
    let ours = own_script(&phone, 0);
    assert_eq!(
        phone.refused(Op::SignClosing(close(490_000, &theirs, 0))),
        Rule::NotOurScript
    );
    assert_eq!(
        phone.refused(Op::SignClosing(close(u64::MAX, &ours, 0))),
        Rule::Malformed
    );
    assert_eq!(
        phone.refused(Op::SignClosing(close(500_001, &ours, 0))),
        Rule::Malformed
    );
    let other = SignClosing {
        funding_outpoint: serialize(&outpoint(6)),
        ..close(490_000, &ours, 0)
    };
    assert_eq!(phone.refused(Op::SignClosing(other)), Rule::Malformed);
}

#[test]
fn a_close_pays_another_address_only_when_the_owner_asked_for_it() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let funding = channel.parameters.funding_outpoint.unwrap();
    let theirs = ScriptBuf::new_p2wpkh(&Hash::all_zeros());
    let to = &somewhere()[0].script_pubkey;
    let address = bitcoin::Address::from_script(to, bitcoin::Network::Regtest).unwrap();
    let close = |script: &ScriptBuf| {
        Op::SignClosing(SignClosing {
            to_holder_sat: 490_000,
            to_counterparty_sat: 500_000,
            to_holder_script: script.to_bytes(),
            to_counterparty_script: theirs.to_bytes(),
            funding_outpoint: serialize(&funding.into_bitcoin_outpoint()),
            ..SignClosing::default()
        })
    };
    let intend = |phone: &mut Phone, channel_id: &[u8]| {
        let intent = longhand_signer::ChannelIntent::Close {
            channel_id: channel_id.to_vec(),
            force: false,
            address: address.to_string(),
        };
        let recorded = phone.signer.add_channel_intent(intent, 1).unwrap();
        phone.keep(&recorded.records);
    };
    assert_eq!(phone.refused(close(to)), Rule::NotOurScript);
    intend(&mut phone, &[9; 32]);
    assert_eq!(
        phone.refused(close(to)),
        Rule::NotOurScript,
        "it is of another channel"
    );
    let channel_id = lightning::ln::types::ChannelId::v1_from_funding_outpoint(funding);
    intend(&mut phone, &channel_id.0);
    phone.ask(close(to)).unwrap();
    let other = ScriptBuf::new_p2wsh(&Hash::all_zeros());
    assert_eq!(phone.refused(close(&other)), Rule::NotOurScript);
    // The owner repeats the command without an address while the close to that one is under way.
    let again = longhand_signer::ChannelIntent::Close {
        channel_id: channel_id.0.to_vec(),
        force: false,
        address: String::new(),
    };
    let recorded = phone.signer.add_channel_intent(again, 2).unwrap();
    phone.keep(&recorded.records);
    phone.ask(close(to)).unwrap();
}

/// The outputs of a closed channel: the owner's balance in the peer's commitment, and in its own.
fn left(phone: &mut Phone) -> [SpendableOutputDescriptor; 2] {
    let channel = Channel::open(phone);
    let ours = &channel.parameters.holder_pubkeys;
    let script_pubkey = get_countersigner_payment_script(
        &channel.parameters.channel_type_features,
        &ours.payment_point,
    );
    let paid = SpendableOutputDescriptor::StaticPaymentOutput(StaticPaymentOutputDescriptor {
        outpoint: LdkOutPoint {
            txid: Txid::from_byte_array([1; 32]),
            index: 0,
        },
        output: TxOut {
            value: Amount::from_sat(300_000),
            script_pubkey,
        },
        channel_keys_id: KEYS_ID,
        channel_value_satoshis: VALUE_SAT,
        channel_transaction_parameters: Some(channel.parameters.clone()),
    });
    let commitment = channel.holder(0, 400_000, &[]);
    let keys = commitment.trust().keys().clone();
    let script = get_revokeable_redeemscript(
        &keys.revocation_key,
        288,
        &keys.broadcaster_delayed_payment_key,
    );
    let delayed = SpendableOutputDescriptor::DelayedPaymentOutput(DelayedPaymentOutputDescriptor {
        outpoint: LdkOutPoint {
            txid: Txid::from_byte_array([2; 32]),
            index: 0,
        },
        per_commitment_point: keys.per_commitment_point,
        to_self_delay: 288,
        output: TxOut {
            value: Amount::from_sat(400_000),
            script_pubkey: script.to_p2wsh(),
        },
        revocation_pubkey: keys.revocation_key,
        channel_keys_id: KEYS_ID,
        channel_value_satoshis: VALUE_SAT,
        channel_transaction_parameters: Some(channel.parameters.clone()),
    });
    [paid, delayed]
}

fn sweep(descriptors: &[SpendableOutputDescriptor], script: &ScriptBuf) -> SpendOutputs {
    SpendOutputs {
        descriptors: descriptors.iter().map(Writeable::encode).collect(),
        change_script: script.to_bytes(),
        change_keychain: 0,
        change_index: 9,
        feerate_sat_per_kw: 1000,
        locktime: 7,
    }
}

#[test]
fn a_sweep_goes_to_the_owner() {
    let mut phone = Phone::new();
    let descriptors = left(&mut phone);
    let script = own_script(&phone, 9);
    let op = Op::SpendOutputs(sweep(&descriptors, &script));
    let answer = phone.ask_on(&[], op.clone()).unwrap();
    phone.restart();
    assert_eq!(
        phone.ask_on(&[], op).unwrap(),
        answer,
        "the same every time"
    );
    let Answer::Transaction(bytes) = answer else {
        panic!()
    };
    let transaction: Transaction = deserialize(&bytes).unwrap();
    assert_eq!(transaction.output.len(), 1);
    assert_eq!(transaction.output[0].script_pubkey, script);
    assert!(transaction.output[0].value > Amount::from_sat(690_000));
    assert!(
        transaction
            .input
            .iter()
            .all(|input| !input.witness.is_empty())
    );
    assert_eq!(transaction.lock_time.to_consensus_u32(), 7);
}

#[test]
fn money_goes_to_no_address_that_the_owner_would_never_find_again() {
    // It is the phone's key. But a wallet that is restored from the words looks at some addresses, not at 2^31, and the
    // host would be the only one to know which.
    const FAR: u32 = 1 << 20;
    let mut phone = Phone::new();
    let script = |phone: &Phone, index| {
        let keys = phone.signer.keys();
        keys.script(Account::Bip84, Keychain::External, index)
            .unwrap()
    };
    assert!(phone.signer.own_script(Keychain::External, FAR).is_none());
    let [paid, _] = left(&mut phone);
    let sweep_to = |phone: &mut Phone, index| {
        let far = SpendOutputs {
            change_index: index,
            ..sweep(std::slice::from_ref(&paid), &script(phone, index))
        };
        phone.ask(Op::SpendOutputs(far)).map_err(|no| rule(&no))
    };
    assert_eq!(sweep_to(&mut phone, FAR), Err(Rule::NotOurScript));
    sweep_to(&mut phone, FAR - 1).unwrap();
    let closing = SignClosing {
        to_holder_sat: 400_000,
        to_counterparty_sat: 500_000,
        to_holder_script: script(&phone, FAR).to_bytes(),
        to_counterparty_script: script(&phone, 0).to_bytes(),
        funding_outpoint: serialize(&phone.funding),
        to_holder_keychain: 0,
        to_holder_index: FAR,
    };
    assert_eq!(phone.refused(Op::SignClosing(closing)), Rule::NotOurScript);
}

#[test]
fn a_sweep_elsewhere_or_of_other_outputs_is_refused() {
    let mut phone = Phone::new();
    let descriptors = left(&mut phone);
    let ours = own_script(&phone, 9);
    let ask = |phone: &mut Phone, op| phone.refused(Op::SpendOutputs(op));
    assert_eq!(
        ask(
            &mut phone,
            sweep(&descriptors, &ScriptBuf::new_p2wpkh(&Hash::all_zeros()))
        ),
        Rule::NotOurScript
    );
    // An address of the owner's, but at another index than the sweep names.
    let other = own_script(&phone, 8);
    assert_eq!(
        ask(&mut phone, sweep(&descriptors, &other)),
        Rule::NotOurScript
    );
    assert_eq!(ask(&mut phone, sweep(&[], &ours)), Rule::Malformed);

    let [mut paid, delayed] = descriptors;
    assert_eq!(
        ask(&mut phone, sweep(&[delayed.clone(), delayed], &ours)),
        Rule::NotOurOutput
    );
    if let SpendableOutputDescriptor::StaticPaymentOutput(descriptor) = &mut paid {
        descriptor.channel_keys_id = [4; 32];
    }
    assert_eq!(
        ask(&mut phone, sweep(&[paid.clone()], &ours)),
        Rule::NotOurOutput
    );
    if let SpendableOutputDescriptor::StaticPaymentOutput(descriptor) = &mut paid {
        descriptor.output.value = Amount::from_sat(u64::MAX);
    }
    assert_eq!(
        ask(&mut phone, sweep(&[paid.clone(), paid], &ours)),
        Rule::Malformed
    );
}

#[test]
fn an_htlc_is_claimed_from_a_commitment_that_is_not_revoked() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let htlcs = [Htlc::incoming([1; 32], 50_000_000)];
    let commitment = channel.holder(1, 400_000, &htlcs);
    phone.ask(validate(&commitment)).unwrap();
    let trusted = commitment.trust();
    let htlc = commitment.nondust_htlcs()[0].clone();
    let descriptor = HTLCDescriptor {
        channel_derivation_parameters: ChannelDerivationParameters {
            value_satoshis: VALUE_SAT,
            keys_id: KEYS_ID,
            transaction_parameters: channel.parameters.clone(),
        },
        commitment_txid: trusted.txid(),
        per_commitment_number: FIRST - 1,
        per_commitment_point: channel.phone_points[1],
        feerate_per_kw: 1000,
        htlc: htlc.clone(),
        preimage: None,
        counterparty_sig: commitment.counterparty_htlc_sigs[0],
    };
    let features = &channel.parameters.channel_type_features;
    let keys = trusted.keys();
    let claim = build_htlc_transaction(
        &trusted.txid(),
        1000,
        288,
        &htlc,
        features,
        &keys.broadcaster_delayed_payment_key,
        &keys.revocation_key,
    );
    let op = |transaction: &Transaction, input, descriptor: &HTLCDescriptor| {
        let (transaction, descriptor) = (serialize(transaction), descriptor.encode());
        Op::SignHolderHtlc(SignHolderHtlc {
            transaction,
            input,
            descriptor,
        })
    };
    let mut elsewhere = claim.clone();
    elsewhere.output[0].script_pubkey = somewhere()[0].script_pubkey.clone();
    assert_eq!(
        phone.refused(op(&elsewhere, 0, &descriptor)),
        Rule::NotOurOutput
    );
    assert_eq!(
        phone.refused(op(&claim, 1, &descriptor)),
        Rule::NotOurOutput
    );
    let older = HTLCDescriptor {
        per_commitment_number: FIRST,
        ..descriptor.clone()
    };
    assert_eq!(phone.refused(op(&claim, 0, &older)), Rule::SignRevoked);

    phone.intend_force(&channel);
    phone.ask(sign_holder(&commitment)).unwrap();
    let signature = signature(phone.ask(op(&claim, 0, &descriptor)).unwrap());
    let script = get_htlc_redeemscript(&htlc, features, keys);
    check(
        &claim,
        0,
        &script,
        50_000,
        signature,
        &keys.broadcaster_htlc_key.to_public_key(),
    );
    // It is signed for broadcast, so that it is never revoked.
    let next = channel.holder(2, 400_000, &[]);
    assert_eq!(phone.refused(validate(&next)), Rule::ChannelClosing);
    assert_eq!(phone.refused(release(1)), Rule::RevokeBeforeValidate);
}

/// Pays the owner at index 9, with a lock time.
fn claiming(phone: &Phone, inputs: &[OutPoint], locktime: u32, sat: u64) -> Transaction {
    let output = TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: own_script(phone, 9),
    };
    Transaction {
        lock_time: LockTime::from_height(locktime).unwrap(),
        ..spending(inputs, vec![output])
    }
}

#[test]
fn an_htlc_of_the_peers_commitment_is_taken_to_the_owner_and_not_before_it_expires() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let (received, paid) = (
        Htlc::incoming([1; 32], 50_000_000),
        Htlc::outgoing([2; 32], 40_000_000),
    );
    phone.intend([2; 32], 40_000_000);
    let theirs = channel.theirs(1, 360_000, &[received, paid]);
    let unsigned = channel.theirs(
        1,
        360_000,
        &[received, paid, Htlc::incoming([3; 32], 60_000_000)],
    );
    phone.ask(sign(&theirs)).unwrap();

    let claim = |from: &CommitmentTransaction,
                 payment_hash: [u8; 32],
                 change: &dyn Fn(&mut Transaction)| {
        let mut htlcs = from.nondust_htlcs().iter();
        let htlc = htlcs
            .find(|htlc| htlc.payment_hash.0 == payment_hash)
            .unwrap();
        let vout = htlc.transaction_output_index.unwrap();
        let spent = OutPoint::new(from.trust().txid(), vout);
        let mut tx = claiming(&phone, &[outpoint(1), spent], htlc.cltv_expiry, 39_000);
        change(&mut tx);
        let op = claim_op(&tx, 1, from, htlc);
        (tx, op)
    };
    let nothing = |_: &mut Transaction| ();
    let early = |tx: &mut Transaction| tx.lock_time = LockTime::from_height(499).unwrap();
    let never = |tx: &mut Transaction| {
        tx.input
            .iter_mut()
            .for_each(|it| it.sequence = Sequence::MAX)
    };
    let stolen = |tx: &mut Transaction| tx.output.extend(somewhere());
    let elsewhere = |tx: &mut Transaction| tx.output = somewhere();
    let other = |tx: &mut Transaction| tx.input[1].previous_output = outpoint(2);
    let ask = |op: SignCounterpartyHtlc| Op::SignCounterpartyHtlc(op);
    let claims = [
        (claim(&theirs, [2; 32], &early), Rule::NotOurOutput),
        (claim(&theirs, [2; 32], &never), Rule::NotOurOutput),
        (claim(&theirs, [1; 32], &stolen), Rule::NotOurScript),
        (claim(&theirs, [1; 32], &elsewhere), Rule::NotOurScript),
        (claim(&theirs, [1; 32], &other), Rule::NotOurOutput),
        // A commitment that the phone has not signed.
        (claim(&unsigned, [3; 32], &nothing), Rule::NotOurOutput),
    ];
    let good = [[1; 32], [2; 32]].map(|hash| claim(&theirs, hash, &nothing));
    // What the peer offered may be taken at any time.
    let soon = claim(&theirs, [1; 32], &early);
    for ((_, op), why) in claims {
        assert_eq!(phone.refused(ask(op)), why);
    }
    for (_, op) in &good {
        let amount = SignCounterpartyHtlc {
            amount_sat: op.amount_sat + 1,
            ..op.clone()
        };
        assert_eq!(phone.refused(ask(amount)), Rule::NotOurOutput);
        let beyond = SignCounterpartyHtlc {
            input: 2,
            ..op.clone()
        };
        assert_eq!(phone.refused(ask(beyond)), Rule::Malformed);
    }
    for (tx, op) in good.into_iter().chain([soon]) {
        let htlc = lightning::util::ser::Readable::read(&mut &op.htlc[..]).unwrap();
        let keys = theirs.trust().keys().clone();
        let features = &channel.parameters.channel_type_features;
        let script = get_htlc_redeemscript(&htlc, features, &keys);
        let key = keys.countersignatory_htlc_key.to_public_key();
        let sat = op.amount_sat;
        check(
            &tx,
            1,
            &script,
            sat,
            signature(phone.ask(ask(op)).unwrap()),
            &key,
        );
    }

    // When the peer has revoked the commitment, its HTLCs are a matter of justice.
    let (_, op) = claim_again(&phone, &theirs);
    phone.ask(channel.revocation(0)).unwrap();
    phone
        .ask(sign(&channel.theirs(2, 360_000, &[received, paid])))
        .unwrap();
    phone.ask(channel.revocation(1)).unwrap();
    assert_eq!(phone.refused(ask(op)), Rule::NotOurOutput);
}

/// A claim of the first HTLC of a commitment.
fn claim_again(phone: &Phone, from: &CommitmentTransaction) -> (Transaction, SignCounterpartyHtlc) {
    let htlc = &from.nondust_htlcs()[0];
    let spent = OutPoint::new(from.trust().txid(), htlc.transaction_output_index.unwrap());
    let tx = claiming(phone, &[spent], htlc.cltv_expiry, 39_000);
    let op = claim_op(&tx, 0, from, htlc);
    (tx, op)
}

fn claim_op(
    tx: &Transaction,
    input: u32,
    from: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> SignCounterpartyHtlc {
    SignCounterpartyHtlc {
        transaction: serialize(tx),
        input,
        amount_sat: htlc.amount_msat / 1000,
        per_commitment_point: from.per_commitment_point().serialize().to_vec(),
        htlc: htlc.encode(),
        keychain: 0,
        index: 9,
    }
}

/// A justice transaction for an output of the commitment with this secret.
fn justice(tx: &Transaction, secret: [u8; 32], sat: u64, htlc: Vec<u8>) -> Op {
    Op::SignJustice(SignJustice {
        transaction: serialize(tx),
        input: 0,
        amount_sat: sat,
        per_commitment_secret: secret.to_vec(),
        htlc,
        keychain: 0,
        index: 9,
    })
}

#[test]
fn the_peers_revoked_commitments_are_punished_and_no_other() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let secp = &channel.secp;
    let secret = |step| {
        channel
            .peer
            .release_commitment_secret(FIRST - step)
            .unwrap()
    };
    let point = channel.peer.get_per_commitment_point(FIRST, secp).unwrap();
    let (theirs, ours) = (
        &channel.peer_parameters.holder_pubkeys,
        &channel.parameters.holder_pubkeys,
    );
    let keys = TxCreationKeys::from_channel_static_keys(&point, theirs, ours, secp);
    let features = &channel.parameters.channel_type_features;
    let tx = claiming(&phone, &[outpoint(1)], 0, 8_000);
    let htlc = channel
        .theirs(0, 1, &[Htlc::incoming([1; 32], 50_000_000)])
        .nondust_htlcs()[0]
        .clone();
    let htlc_script = get_htlc_redeemscript(&htlc, features, &keys);

    // With a secret that the peer has not given by revoking, it and the host would share what is in flight: that of the commitment
    // that it has, of the next one, and of one far ahead.
    let refused =
        |phone: &mut Phone, step| phone.refused(justice(&tx, secret(step), 9_000, vec![]));
    assert_eq!(refused(&mut phone, 0), Rule::JusticeUnrevoked);
    phone.ask(sign(&channel.theirs(1, 400_000, &[]))).unwrap();
    for step in [0, 1, 2, 9] {
        assert_eq!(refused(&mut phone, step), Rule::JusticeUnrevoked);
    }
    phone.ask(channel.revocation(0)).unwrap();
    let got = signature(phone.ask(justice(&tx, secret(0), 9_000, vec![])).unwrap());
    let script = get_revokeable_redeemscript(
        &keys.revocation_key,
        144,
        &keys.broadcaster_delayed_payment_key,
    );
    let key = keys.revocation_key.to_public_key();
    check(&tx, 0, &script, 9_000, got, &key);
    let got = signature(
        phone
            .ask(justice(&tx, secret(0), 9_000, htlc.encode()))
            .unwrap(),
    );
    check(&tx, 0, &htlc_script, 9_000, got, &key);
    for step in [1, 2, 9] {
        assert_eq!(refused(&mut phone, step), Rule::JusticeUnrevoked);
    }

    let stolen = spending(&[outpoint(1)], somewhere());
    let stolen = justice(&stolen, secret(0), 9_000, vec![]);
    assert_eq!(phone.refused(stolen), Rule::NotOurScript);
    let dear = claiming(&phone, &[outpoint(1)], 0, 100_000);
    let dear = justice(&dear, secret(0), 200_000, vec![]);
    assert_eq!(phone.refused(dear), Rule::CloseFee);

    // A later commitment with the same point would be punished by the signatures that exist.
    let same_point = CommitmentTransaction::new(
        FIRST - 2,
        &point,
        590_000,
        400_000,
        1000,
        Vec::new(),
        &channel.parameters.as_counterparty_broadcastable(),
        secp,
    );
    phone.restart();
    assert_eq!(phone.refused(sign(&same_point)), Rule::CounterpartyNumber);
}

#[test]
fn an_anchor_is_spent() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let ours = &channel.parameters.holder_pubkeys;
    let tx = claiming(&phone, &[outpoint(1)], 0, 300);
    let anchor = SignAnchor {
        transaction: serialize(&tx),
        input: 0,
    };
    let got = signature(phone.ask(Op::SignAnchor(anchor)).unwrap());
    let script = get_keyed_anchor_redeemscript(&ours.funding_pubkey);
    check(&tx, 0, &script, 330, got, &ours.funding_pubkey);
}

#[test]
fn a_close_pays_the_balance() {
    let mut phone = Phone::new();
    let channel = Channel::outbound(&mut phone);
    phone.ask(channel.setup()).unwrap();
    phone.ask(first(&channel)).unwrap();
    phone
        .ask(sign(&channel.theirs_at(0, 1000, FUNDER_SAT, 0)))
        .unwrap();
    let funding = channel.parameters.funding_outpoint.unwrap();
    let close = |to_holder_sat, to_counterparty_sat| {
        Op::SignClosing(SignClosing {
            to_holder_sat,
            to_counterparty_sat,
            to_holder_script: own_script(&phone, 3).to_bytes(),
            to_counterparty_script: somewhere()[0].script_pubkey.to_bytes(),
            funding_outpoint: serialize(&funding.into_bitcoin_outpoint()),
            ..SignClosing::default()
        })
    };
    // A tenth of it is the limit of the fee.
    let closes = [close(899_999, 0), close(890_000, 110_000), close(0, 0)];
    let good = close(900_000, 0);
    for op in closes {
        assert_eq!(phone.refused(op), Rule::CloseBalance);
    }
    phone.ask(good).unwrap();
}

#[test]
fn nothing_follows_in_a_channel_after_its_close_was_signed() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let funding = channel.parameters.funding_outpoint.unwrap();
    let close = Op::SignClosing(SignClosing {
        to_holder_sat: 400_000,
        to_counterparty_sat: 500_000,
        to_holder_script: own_script(&phone, 3).to_bytes(),
        to_counterparty_script: somewhere()[0].script_pubkey.to_bytes(),
        funding_outpoint: serialize(&funding.into_bitcoin_outpoint()),
        ..SignClosing::default()
    });
    let (ours, theirs) = (
        channel.holder(0, 400_000, &[]),
        channel.theirs(0, 400_000, &[]),
    );
    phone.ask(close.clone()).unwrap();
    phone.restart();
    phone.ask(close).unwrap();
    let next = validate(&channel.holder(1, 400_000, &[]));
    assert_eq!(phone.refused(next), Rule::ChannelClosing);
    let next = sign(&channel.theirs(1, 400_000, &[]));
    assert_eq!(phone.refused(next), Rule::ChannelClosing);
    // What was signed is signed again, and the owner may still close by force.
    phone.ask(validate(&ours)).unwrap();
    phone.ask(sign(&theirs)).unwrap();
    phone.intend_force(&channel);
    phone.ask(sign_holder(&ours)).unwrap();
}

#[test]
fn a_channel_with_an_htlc_is_not_closed() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let received = [Htlc::incoming([1; 32], 50_000_000)];
    phone
        .ask(validate(&channel.holder(1, 400_000, &received)))
        .unwrap();
    let funding = channel.parameters.funding_outpoint.unwrap();
    let close = Op::SignClosing(SignClosing {
        to_holder_sat: 400_000,
        to_counterparty_sat: 500_000,
        to_holder_script: own_script(&phone, 3).to_bytes(),
        to_counterparty_script: somewhere()[0].script_pubkey.to_bytes(),
        funding_outpoint: serialize(&funding.into_bitcoin_outpoint()),
        ..SignClosing::default()
    });
    assert_eq!(phone.refused(close), Rule::CloseBalance);
}
