//! devnet's mempool, by `sendrawtransaction`, `testmempoolaccept` and `submitpackage`: it has the rules and the reject
//! reasons of Bitcoin Core.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxOut};
use longhand_chain::Devnet;
use serde_json::{Value, json};

use crate::keys::{Coin, Key, coin, output};
use crate::rpc::Rpc;

/// A devnet, a key with coins, and RPC.
struct Setup {
    devnet: Devnet,
    key: Key,
    rpc: Rpc,
}

async fn setup() -> Setup {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    Setup {
        devnet,
        key: Key::new(1),
        rpc,
    }
}

impl Setup {
    fn coin(&self) -> Coin {
        self.key.fund(&self.devnet, 1_000_000)
    }

    /// Sends a transaction that is rejected; returns code and message of the error.
    async fn refused(&self, tx: &Transaction) -> (i64, String) {
        self.rpc
            .error("sendrawtransaction", json!([serialize_hex(tx)]))
            .await
    }

    async fn takes(&self, tx: &Transaction) {
        let txid = self
            .rpc
            .ok("sendrawtransaction", json!([serialize_hex(tx)]))
            .await;
        assert_eq!(txid, json!(tx.compute_txid()));
    }

    async fn package(&self, txs: &[&Transaction]) -> Value {
        let hex: Vec<String> = txs.iter().map(|tx| serialize_hex(*tx)).collect();
        self.rpc.ok("submitpackage", json!([hex])).await
    }

    fn in_mempool(&self, tx: &Transaction) -> bool {
        self.devnet.mempool().contains(tx)
    }
}

/// Changes for [`Key::build`].
fn truc(tx: &mut Transaction) {
    tx.version = Version::non_standard(3);
}

fn split(tx: &mut Transaction) {
    tx.output[0].value /= 2;
    tx.output.push(tx.output[0].clone());
}

#[tokio::test]
async fn a_lock_time_must_have_passed_in_the_next_block() {
    let setup = setup().await;
    let coin = setup.coin();
    let height = setup.devnet.tip().height;
    let locked = |height: u32| {
        setup.key.build(std::slice::from_ref(&coin), 500, |tx| {
            tx.lock_time = LockTime::from_height(height).unwrap();
        })
    };
    assert_eq!(
        setup.refused(&locked(height + 1)).await,
        (-26, "non-final".into())
    );
    setup.takes(&locked(height)).await;
}

#[tokio::test]
async fn a_lock_time_in_seconds_goes_by_the_median_time() {
    let setup = setup().await;
    let coin = setup.coin();
    let info = setup.rpc.ok("getblockchaininfo", json!([])).await;
    let median = u32::try_from(info["mediantime"].as_u64().unwrap()).unwrap();
    let locked = |time: u32| {
        setup.key.build(std::slice::from_ref(&coin), 500, |tx| {
            tx.lock_time = LockTime::from_time(time).unwrap();
        })
    };
    assert_eq!(
        setup.refused(&locked(median)).await,
        (-26, "non-final".into())
    );
    setup.takes(&locked(median - 1)).await;
}

#[tokio::test]
async fn a_relative_lock_counts_blocks_from_confirmation() {
    let setup = setup().await;
    let coin = setup.coin();
    let tx = setup.key.build(&[coin], 500, |tx| {
        tx.input[0].sequence = Sequence::from_height(3)
    });
    assert_eq!(setup.refused(&tx).await, (-26, "non-BIP68-final".into()));
    setup.devnet.mine_to_wallet(1).unwrap();
    assert_eq!(setup.refused(&tx).await, (-26, "non-BIP68-final".into()));
    setup.devnet.mine_to_wallet(1).unwrap();
    setup.takes(&tx).await;
    setup.devnet.mine_to_wallet(1).unwrap();
    assert!(setup.devnet.confirmed_at(&tx.compute_txid()).is_some());
}

#[tokio::test]
async fn a_relative_lock_in_seconds_and_one_on_the_unconfirmed_are_refused_too_early() {
    let setup = setup().await;
    let parent = setup.key.spend(&setup.coin(), 500);
    let time = |tx: &mut Transaction| tx.input[0].sequence = Sequence::from_512_second_intervals(1);
    let early = setup.key.build(&[setup.coin()], 500, time);
    assert_eq!(setup.refused(&early).await, (-26, "non-BIP68-final".into()));
    setup.takes(&parent).await;
    let child = setup
        .key
        .build(&[coin(&parent, &setup.key.script())], 500, |tx| {
            tx.input[0].sequence = Sequence::from_height(1);
        });
    assert_eq!(setup.refused(&child).await, (-26, "non-BIP68-final".into()));
}

#[tokio::test]
async fn a_bad_signature_is_refused() {
    let setup = setup().await;
    let mut tx = setup.key.spend(&setup.coin(), 500);
    tx.output[0].value -= Amount::from_sat(1);
    let (code, message) = setup.refused(&tx).await;
    assert_eq!(code, -26);
    assert!(
        message.starts_with("mandatory-script-verify-flag-failed"),
        "{message}"
    );
    assert_eq!(setup.devnet.mempool(), []);
}

#[tokio::test]
async fn inputs_must_exist_and_be_mature_and_cover_the_outputs() {
    let setup = setup().await;
    let mut nowhere = setup.coin();
    nowhere.0.vout = 99;
    let tx = setup.key.spend(&nowhere, 500);
    assert_eq!(
        setup.refused(&tx).await,
        (-25, "bad-txns-inputs-missingorspent".into())
    );

    let hash = setup.devnet.mine(1, setup.key.script()).unwrap()[0];
    let coinbase = setup.devnet.block(&hash).unwrap().txdata[0].clone();
    let (code, message) = setup
        .refused(&setup.key.spend(&output(&coinbase, 0), 500))
        .await;
    assert_eq!(code, -26);
    assert!(
        message.starts_with("bad-txns-premature-spend-of-coinbase"),
        "{message}"
    );

    let more = setup.key.build(&[setup.coin()], 500, |tx| {
        tx.output[0].value += Amount::ONE_BTC
    });
    let (_, message) = setup.refused(&more).await;
    assert!(message.starts_with("bad-txns-in-belowout"), "{message}");
}

#[tokio::test]
async fn fees_are_neither_too_low_nor_absurd() {
    let setup = setup().await;
    let coin = setup.coin();
    let (code, message) = setup.refused(&setup.key.spend(&coin, 109)).await;
    assert_eq!(
        (code, message.as_str()),
        (-26, "min relay fee not met, 109 < 110")
    );
    let dear = serialize_hex(&setup.key.spend(&coin, 500));
    let (code, message) = setup
        .rpc
        .error("sendrawtransaction", json!([dear, 0.00004]))
        .await;
    assert_eq!(code, -25);
    assert!(message.starts_with("Fee exceeds maximum"), "{message}");
    setup.takes(&setup.key.spend(&coin, 110)).await;
}

#[tokio::test]
async fn odd_forms_are_refused() {
    let setup = setup().await;
    let coin = setup.coin();
    let build =
        |change: fn(&mut Transaction)| setup.key.build(std::slice::from_ref(&coin), 500, change);
    let dust = build(|tx| tx.output[0].value = Amount::from_sat(293));
    assert_eq!(
        setup.refused(&dust).await.1,
        "dust, tx with dust output must be 0-fee"
    );
    let version = build(|tx| tx.version = Version::non_standard(4));
    assert_eq!(setup.refused(&version).await, (-26, "version".into()));
    let script = build(|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51, 0x51]));
    assert_eq!(setup.refused(&script).await, (-26, "scriptpubkey".into()));
    let empty = build(|tx| tx.output.clear());
    assert_eq!(
        setup.refused(&empty).await,
        (-26, "bad-txns-vout-empty".into())
    );
    let twice = setup.key.build(&[coin.clone(), coin.clone()], 500, |_| {});
    assert_eq!(
        setup.refused(&twice).await,
        (-26, "bad-txns-inputs-duplicate".into())
    );
}

#[tokio::test]
async fn a_replacement_pays_more_in_all_ways() {
    let setup = setup().await;
    let coin = setup.coin();
    let first = setup.key.spend(&coin, 1_000);
    setup.takes(&first).await;
    let child = setup.key.spend(&output(&first, 0), 2_000);
    setup.takes(&child).await;

    let (code, message) = setup.refused(&setup.key.spend(&coin, 1_000 - 1)).await;
    assert_eq!(code, -26);
    assert!(message.starts_with("insufficient fee"), "{message}");
    // It has to pay for the child as well, and for its own relay.
    let (_, message) = setup.refused(&setup.key.spend(&coin, 2_999)).await;
    assert!(
        message.contains("less fees than conflicting txs"),
        "{message}"
    );
    let (_, message) = setup.refused(&setup.key.spend(&coin, 3_109)).await;
    assert!(
        message.contains("not enough additional fees to relay; 109 < 110"),
        "{message}"
    );
    let second = setup.key.spend(&coin, 3_110);
    setup.takes(&second).await;
    assert_eq!(setup.devnet.mempool(), [second]);
}

#[tokio::test]
async fn a_conflict_with_a_block_leaves_the_mempool_with_its_children() {
    let setup = setup().await;
    let coin = setup.coin();
    let first = setup.key.spend(&coin, 1_000);
    setup.takes(&first).await;
    setup
        .takes(&setup.key.spend(&output(&first, 0), 1_000))
        .await;
    let other = setup.key.spend(&coin, 200);
    let params = json!([setup.key.address().to_string(), [serialize_hex(&other)]]);
    setup.rpc.ok("generateblock", params).await;
    assert_eq!(setup.devnet.mempool(), []);
    assert!(setup.devnet.confirmed_at(&other.compute_txid()).is_some());
}

#[tokio::test]
async fn chains_end_at_25() {
    let setup = setup().await;
    let mut next = setup.coin();
    for _ in 0..25 {
        let tx = setup.key.spend(&next, 200);
        setup.takes(&tx).await;
        next = output(&tx, 0);
    }
    let (code, message) = setup.refused(&setup.key.spend(&next, 200)).await;
    assert_eq!(code, -26);
    assert!(message.starts_with("too-long-mempool-chain"), "{message}");
    setup.devnet.mine_to_wallet(1).unwrap();
    setup.takes(&setup.key.spend(&next, 200)).await;
}

#[tokio::test]
async fn a_block_has_the_best_fee_rate_with_parents_first() {
    let setup = setup().await;
    let (cheap_coin, other_coin) = (setup.coin(), setup.coin());
    let cheap = setup.key.spend(&cheap_coin, 110);
    let child = setup.key.spend(&output(&cheap, 0), 10_000);
    let other = setup.key.spend(&other_coin, 1_000);
    for tx in [&other, &cheap, &child] {
        setup.takes(tx).await;
    }
    let hash = setup.devnet.mine_to_wallet(1).unwrap()[0];
    let block = setup.devnet.block(&hash).unwrap();
    assert_eq!(block.txdata[1..], [cheap, child, other]);
    let reward = 50 * 100_000_000 + 11_110;
    assert_eq!(block.txdata[0].output[0].value.to_sat(), reward);
}

#[tokio::test]
async fn a_package_is_taken_or_refused_as_a_whole() {
    let setup = setup().await;
    let parent = setup.key.spend(&setup.coin(), 0);
    let poor = setup.key.spend(&output(&parent, 0), 219);
    let answer = setup.package(&[&parent, &poor]).await;
    assert_eq!(answer["package_msg"], "transaction failed");
    let error = answer["tx-results"][parent.compute_wtxid().to_string()]["error"].clone();
    assert!(
        error.as_str().unwrap().starts_with("min relay fee not met"),
        "{error}"
    );
    assert_eq!(setup.devnet.mempool(), []);

    let rich = setup.key.spend(&output(&parent, 0), 2_200);
    let answer = setup.package(&[&parent, &rich]).await;
    assert_eq!(answer["package_msg"], "success");
    let fees = &answer["tx-results"][parent.compute_wtxid().to_string()]["fees"];
    assert_eq!(fees["base"], 0.0);
    assert_eq!(fees["effective-feerate"], 0.0001);
    let together = json!([parent.compute_wtxid(), rich.compute_wtxid()]);
    assert_eq!(fees["effective-includes"], together);
    assert_eq!(setup.devnet.mempool(), [parent, rich]);
}

#[tokio::test]
async fn a_package_has_its_form() {
    let setup = setup().await;
    let parent = setup.key.spend(&setup.coin(), 500);
    let child = setup.key.spend(&output(&parent, 0), 500);
    let stranger = setup.key.spend(&setup.coin(), 500);
    let package = async |txs: &[&Transaction]| {
        let hex: Vec<String> = txs.iter().map(|tx| serialize_hex(*tx)).collect();
        setup.rpc.error("submitpackage", json!([hex])).await.1
    };
    assert_eq!(package(&[&child, &parent]).await, "package-not-sorted");
    assert_eq!(
        package(&[&parent, &parent]).await,
        "package-contains-duplicates"
    );
    assert!(
        package(&[&stranger, &parent])
            .await
            .starts_with("package topology disallowed")
    );
}

#[tokio::test]
async fn version_3_is_one_parent_and_one_small_child() {
    let setup = setup().await;
    let parent = setup.key.build(&[setup.coin()], 1_000, |tx| {
        truc(tx);
        split(tx);
    });
    setup.takes(&parent).await;
    let v2 = setup.key.spend(&output(&parent, 0), 500);
    let (code, message) = setup.refused(&v2).await;
    assert_eq!(code, -26);
    assert!(message.starts_with("TRUC-violation"), "{message}");

    let big = setup.key.build(&[output(&parent, 0)], 5_000, |tx| {
        truc(tx);
        let note = bitcoin::script::PushBytesBuf::try_from(vec![0; 1_000]).unwrap();
        tx.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::new_op_return(note),
        });
    });
    assert!(setup.refused(&big).await.1.contains("is too big"));

    let child = setup.key.build(&[output(&parent, 0)], 500, truc);
    setup.takes(&child).await;
    let grandchild = setup.key.build(&[output(&child, 0)], 500, truc);
    assert!(
        setup
            .refused(&grandchild)
            .await
            .1
            .contains("too many ancestors")
    );

    // A sibling replaces the child when it pays for that.
    let poor = setup.key.build(&[output(&parent, 1)], 550, truc);
    assert!(setup.refused(&poor).await.1.starts_with("insufficient fee"));
    let sibling = setup.key.build(&[output(&parent, 1)], 1_000, truc);
    setup.takes(&sibling).await;
    assert!(!setup.in_mempool(&child));
    assert!(setup.in_mempool(&sibling));
}

/// A commitment transaction without fee and its anchor, as in zero-fee commitments.
fn commitment(setup: &Setup, coin: &Coin, tag: u64) -> (Transaction, Coin) {
    let tx = setup.key.build(std::slice::from_ref(coin), tag, |tx| {
        truc(tx);
        let anchor = ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]);
        tx.output.push(TxOut {
            value: Amount::from_sat(tag),
            script_pubkey: anchor,
        });
    });
    let anchor = output(&tx, 1);
    (tx, anchor)
}

#[tokio::test]
async fn a_commitment_without_fee_goes_in_by_a_child_that_spends_its_anchor() {
    let setup = setup().await;
    let (channel, money) = (setup.coin(), setup.coin());
    let (commitment, anchor) = commitment(&setup, &channel, 100);
    let (_, message) = setup.refused(&commitment).await;
    assert!(message.starts_with("min relay fee not met"), "{message}");

    let forgets = setup.key.build(&[output(&commitment, 0)], 5_000, truc);
    let answer = setup.package(&[&commitment, &forgets]).await;
    let error = answer["tx-results"][forgets.compute_wtxid().to_string()]["error"].clone();
    assert!(
        error
            .as_str()
            .unwrap()
            .starts_with("missing-ephemeral-spends"),
        "{error}"
    );

    let pays = setup.key.build(&[anchor, money], 5_000, truc);
    let answer = setup.package(&[&commitment, &pays]).await;
    assert_eq!(answer["package_msg"], "success");
    setup.devnet.mine_to_wallet(1).unwrap();
    assert!(
        setup
            .devnet
            .confirmed_at(&commitment.compute_txid())
            .is_some()
    );
}

#[tokio::test]
async fn a_package_replaces_the_other_sides_commitment() {
    let setup = setup().await;
    let (channel, theirs, ours) = (setup.coin(), setup.coin(), setup.coin());
    let (first, anchor) = commitment(&setup, &channel, 100);
    let first_child = setup.key.build(&[anchor, theirs], 5_000, truc);
    assert_eq!(
        setup.package(&[&first, &first_child]).await["package_msg"],
        "success"
    );

    let (second, anchor) = commitment(&setup, &channel, 150);
    let poor = setup
        .key
        .build(&[anchor.clone(), ours.clone()], 5_000, truc);
    let answer = setup.package(&[&second, &poor]).await;
    assert!(
        answer["package_msg"]
            .as_str()
            .unwrap()
            .starts_with("package RBF failed"),
        "{answer}"
    );
    assert!(setup.in_mempool(&first) && setup.in_mempool(&first_child));

    let rich = setup.key.build(&[anchor, ours], 6_000, truc);
    let answer = setup.package(&[&second, &rich]).await;
    assert_eq!(answer["package_msg"], "success");
    assert_eq!(answer["replaced-transactions"].as_array().unwrap().len(), 2);
    assert_eq!(setup.devnet.mempool(), [second, rich]);
}

#[tokio::test]
async fn testing_changes_nothing() {
    let setup = setup().await;
    let good = setup.key.spend(&setup.coin(), 500);
    let mut bad = good.clone();
    bad.input[0].previous_output.vout = 9;
    let test = async |tx: &Transaction| {
        let answer = setup
            .rpc
            .ok("testmempoolaccept", json!([[serialize_hex(tx)]]))
            .await;
        answer[0].clone()
    };
    let answer = test(&good).await;
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["vsize"], 110);
    assert_eq!(answer["fees"]["base"], 0.000005);
    assert_eq!(setup.devnet.mempool(), []);
    let answer = test(&bad).await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["reject-reason"], "missing-inputs");
    setup.takes(&good).await;
    assert_eq!(test(&good).await["reject-reason"], "txn-already-in-mempool");
}
