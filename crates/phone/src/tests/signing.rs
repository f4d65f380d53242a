//! Batches of the node, from the link to the ledger and back.

use std::io;

use bitcoin::secp256k1::Secp256k1;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CounterpartyChannelTransactionParameters,
};
use lightning::sign::{ChannelSigner, KeysManager};
use lightning::util::ser::{Readable, Writeable};
use lightning_types::features::ChannelTypeFeatures;
use longhand_proto::Code;
use longhand_proto::rule::Rule;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{
    ChannelTerms, Ecdh, NewChannelKeys, ReleaseSecret, SetupChannel, SignerBatch, SignerOp,
    SignerReply,
};
use prost::Message;

use super::*;
use crate::testing::{DiskFate, DiskFaults, DiskWrite};

const KEYS_ID: [u8; 32] = [6; 32];

pub(super) fn batch(ops: impl IntoIterator<Item = Op>) -> SignerBatch {
    batch_on(&KEYS_ID, ops)
}

pub(super) fn batch_on(keys_id: &[u8], ops: impl IntoIterator<Item = Op>) -> SignerBatch {
    let channel_keys_id = keys_id.to_vec();
    let op = |op| SignerOp {
        channel_keys_id: channel_keys_id.clone(),
        op: Some(op),
    };
    SignerBatch {
        ops: ops.into_iter().map(op).collect(),
    }
}

pub(super) async fn ask(
    host: &ScriptedHost,
    batch: &SignerBatch,
) -> Result<Vec<Answer>, LinkError> {
    let reply = host
        .conversation
        .request("signer", batch.encode_to_vec())
        .await?;
    let answers = SignerReply::decode(reply.as_slice()).unwrap().answers;
    Ok(answers
        .into_iter()
        .map(|answer| answer.answer.unwrap())
        .collect())
}

/// The first operation of a channel, before anything is signed: the first that the ledger records.
pub(super) async fn setup(host: &ScriptedHost) -> SignerBatch {
    let new = NewChannelKeys {
        channel_keys_id: KEYS_ID.to_vec(),
        points: 2,
    };
    let answers = ask(host, &batch([Op::NewChannelKeys(new)])).await.unwrap();
    let [Answer::NewChannelKeys(keys)] = &answers[..] else {
        panic!("{answers:?}")
    };
    let secp = Secp256k1::new();
    let peer = KeysManager::new(&[8; 32], 1, 1, true).derive_channel_keys(&[9; 32]);
    let parameters = ChannelTransactionParameters {
        holder_pubkeys: Readable::read(&mut &keys.public_keys[..]).unwrap(),
        // Long enough for a channel with the hub.
        holder_selected_contest_delay: 1_008,
        is_outbound_from_holder: false,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: peer.pubkeys(&secp),
            selected_contest_delay: 144,
        }),
        funding_outpoint: Some(lightning::chain::transaction::OutPoint {
            txid: bitcoin::hashes::Hash::from_byte_array([5; 32]),
            index: 0,
        }),
        splice_parent_funding_txid: None,
        channel_type_features: ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
        channel_value_satoshis: 100_000,
    };
    let setup = Op::SetupChannel(SetupChannel {
        parameters: parameters.encode(),
        counterparty_node_id: payee_id().serialize().to_vec(),
        opening_id: Vec::new(),
        terms: Some(ChannelTerms::default()),
    });
    batch_on(&keys.channel_keys_id, [setup])
}

pub(super) async fn version(phone: &Phone) -> u64 {
    phone.look(|signer| signer.version()).await.unwrap()
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_the_same_again() {
    let (_dir, _phone, host) = attached().await;
    let act = [&[0][..], &payee_id().serialize(), &[7; 16]].concat();
    let with_hub = Ecdh {
        act,
        dialed_node_id: payee_id().serialize().to_vec(),
    };
    let ops = batch([
        Op::Ecdh(with_hub),
        Op::ReleaseSecret(ReleaseSecret {
            index: (1 << 48) - 1,
        }),
        Op::Ecdh(Ecdh {
            act: vec![1],
            dialed_node_id: Vec::new(),
        }),
    ]);
    let answers = ask(&host, &ops).await.unwrap();
    assert!(matches!(
        &answers[..],
        [Answer::SharedSecret(secret), Answer::Refusal(_), Answer::Refusal(_)] if secret.len() == 32
    ));
    assert_eq!(ask(&host, &ops).await.unwrap(), answers);
}

#[tokio::test]
async fn what_a_batch_changes_is_durable_when_the_answer_is_there() {
    let (dir, phone, host) = attached().await;
    let setup = setup(&host).await;
    assert_eq!(version(&phone).await, 0);
    let answers = ask(&host, &setup).await.unwrap();
    assert!(matches!(answers[..], [Answer::Setup(_)]), "{answers:?}");
    assert_eq!(version(&phone).await, 1);

    // A phone that loses its power now is restored from the files as they are at this moment.
    let copy = tempfile::tempdir().unwrap();
    for name in ["seed.age", "ledger", "ledger.head"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let vault = Vault::open(copy.path(), &"passphrase".to_owned().into()).unwrap();
    let restored = start(vault, ToHost(host)).unwrap();
    assert_eq!(version(&restored).await, 1);
}

#[tokio::test]
async fn a_compacted_ledger_makes_the_same_signer() {
    let (dir, phone, host) = attached().await;
    let setup = setup(&host).await;
    ask(&host, &setup).await.unwrap();
    let before = std::fs::read(dir.path().join("ledger")).unwrap();
    phone.inner.signer.compact();
    assert_ne!(std::fs::read(dir.path().join("ledger")).unwrap(), before);
    phone.invoice(Some(1_000), "after", 600).await.unwrap();
    let expected = version(&phone).await;

    let (ledger, found) = phone.vault().ledger().unwrap();
    drop(ledger);
    let seed = longhand_signer::Seed::from_words(WORDS).unwrap();
    let key = phone.vault().ledger_key();
    let restored = longhand_signer::Signer::restore(&seed, Network::Regtest, &key, &found).unwrap();
    assert_eq!(restored.version(), expected);
    assert_eq!(restored.payments().count(), 1);
    let answers = ask(&host, &setup).await.unwrap();
    assert!(
        matches!(answers[..], [Answer::Setup(_)]),
        "the channel is known: {answers:?}"
    );
}

#[tokio::test]
async fn a_phone_made_again_from_its_words_takes_up_no_channel_of_the_old_one() {
    let host = scripted_host();
    let (_dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    let setup = setup(&host).await;
    let answers = ask(&host, &setup).await.unwrap();
    assert!(matches!(answers[..], [Answer::Setup(_)]), "{answers:?}");
    phone.detach().await.unwrap();

    host.forget_phone();
    let (_new_dir, restored) = phone_with(WORDS, &host);
    restored.pair(&code_text(&host)).await.unwrap();
    let answers = ask(&host, &setup).await.unwrap();
    assert!(
        matches!(&answers[..], [Answer::Refusal(no)] if no.is_by(Rule::SetupLedger)),
        "{answers:?}"
    );
}

#[tokio::test]
async fn many_batches_at_once_are_all_answered() {
    let (_dir, _phone, host) = attached().await;
    let asking = (0..50u8).map(|n| {
        let new = NewChannelKeys {
            channel_keys_id: vec![n; 32],
            points: 1,
        };
        let host = Arc::clone(&host);
        tokio::spawn(async move { ask(&host, &batch([Op::NewChannelKeys(new)])).await })
    });
    for answer in asking.collect::<Vec<_>>() {
        assert!(matches!(
            answer.await.unwrap().unwrap()[..],
            [Answer::NewChannelKeys(_)]
        ));
    }
}

#[tokio::test]
async fn what_is_no_batch_is_refused_by_name() {
    let (_dir, _phone, host) = attached().await;
    let refusal = |answer: Result<Vec<u8>, LinkError>| match answer {
        Err(LinkError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal(host.conversation.request("signer", vec![0xff; 9]).await),
        Code::BadRequest
    );
    assert_eq!(
        refusal(host.conversation.request("command", Vec::new()).await),
        Code::UnknownKind
    );
}

/// A disk that is full at the next write, and has space again after it.
#[derive(Default)]
struct FullOnce(AtomicBool);

impl FullOnce {
    fn fill(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl DiskFaults for FullOnce {
    fn before(&self, _: DiskWrite, _: usize) -> DiskFate {
        if !self.0.swap(false, Ordering::SeqCst) {
            return DiskFate::GoOn;
        }
        DiskFate::Fail {
            error: io::ErrorKind::StorageFull.into(),
            written: 0,
        }
    }
    fn power_gone(&self) {
        unreachable!("the power is never cut");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_recorded_gets_no_answer_until_it_can() {
    let disk = Arc::new(FullOnce::default());
    let (_dir, phone, host) = attached_on(Some(disk.clone())).await;
    let setup = setup(&host).await;
    disk.fill();
    let error = ask(&host, &setup).await.unwrap_err();
    let LinkError::Down(reason) = error else {
        panic!("{error:?}")
    };
    assert_eq!(reason.code.as_str(), Code::LedgerUnwritable);
    assert!(reason.message.contains("the disk is full"), "{reason}");

    // The phone is back by itself, with the signer as the disk has it, and now there is space.
    host.link(2).await;
    assert_eq!(version(&phone).await, 0);
    let answers = ask(&host, &setup).await.unwrap();
    assert!(matches!(answers[..], [Answer::Setup(_)]), "{answers:?}");
    assert_eq!(version(&phone).await, 1);
}

#[tokio::test]
async fn a_full_disk_stops_a_command_before_it_is_sent() {
    let disk = Arc::new(FullOnce::default());
    let (_dir, phone, host) = attached_on(Some(disk.clone())).await;
    let pay = InvoiceSpec::default().text();
    disk.fill();
    assert_eq!(code_of(phone.pay(&pay, None, None).await), Code::DiskFull);
    phone.inner.signer.look(|_| ()).unwrap();
    disk.fill();
    assert_eq!(
        code_of(phone.invoice(Some(1_000), "", 600).await),
        Code::DiskFull
    );
    assert_eq!(host.asked(), []);
    assert_eq!(version(&phone).await, 0);
}
