//! Signatures of local keys and of a phone, and LDK's coin selection.

use longhand_proto::Code;

use super::*;

#[test]
fn signatures_of_the_owner_s_keys_make_a_transaction() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::new(kind);
        world.receive(50_000);
        world.receive(60_000);
        let psbt = world
            .wallet
            .send(foreign(), SendAmount::All, FEERATE, 0)
            .unwrap();
        let signed = world.sign(&psbt);
        let tx = world.wallet.finalize(&signed, &psbt).unwrap();
        assert_eq!(tx.compute_txid(), psbt.unsigned_tx.compute_txid());
        assert!(tx.input.iter().all(|input| !input.witness.is_empty()));

        // A signer may as well return final witnesses.
        let mut finished = psbt.clone();
        for (input, from) in finished.inputs.iter_mut().zip(&tx.input) {
            input.final_script_witness = Some(from.witness.clone());
        }
        assert_eq!(world.wallet.finalize(&finished, &psbt).unwrap(), tx);
    }
}

#[test]
fn a_wallet_with_keys_signs_for_itself_and_one_without_does_not() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::of(account(kind, 7), true);
        world.receive(50_000);
        let psbt = world
            .wallet
            .send(foreign(), SendAmount::All, FEERATE, 0)
            .unwrap();
        let mut signed = psbt.clone();
        world.wallet.sign_locally(&mut signed).unwrap();
        world.wallet.finalize(&signed, &psbt).unwrap();
        assert!(world.wallet.holds_keys());
        let records: Vec<Vec<u8>> = world.records.values().cloned().collect();
        let stored = String::from_utf8(records.concat()).unwrap();
        assert!(!stored.contains("tprv"), "keys are not stored");

        world.reload();
        assert!(!world.wallet.holds_keys());
        let refused = world.wallet.sign_locally(&mut signed).unwrap_err();
        assert_eq!(refused.code(), Code::NoKeys);
    }
}

#[test]
fn descriptors_from_a_master_key_make_a_wallet_that_signs() {
    let master = account("wpkh", 7).master;
    let keys = [0, 1].map(|keychain| format!("wpkh({master}/84h/1h/0h/{keychain}/*)"));
    let hub = Account {
        keys,
        ..account("wpkh", 7)
    };
    let mut world = World::of(hub, true);
    world.receive(50_000);
    let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
    let mut signed = psbt.clone();
    world.wallet.sign_locally(&mut signed).unwrap();
    world.wallet.finalize(&signed, &psbt).unwrap();
    let path: DerivationPath = "84'/1'/0'/0/0".parse().unwrap();
    let origins: Vec<_> = psbt.inputs[0].bip32_derivation.values().collect();
    assert_eq!(origins, [&(master.fingerprint(&Secp256k1::new()), path)]);
}

#[test]
fn a_changed_transaction_is_refused() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
    let mut changed = psbt.clone();
    changed.unsigned_tx.output[0].value += Amount::from_sat(1);
    let signed = world.sign(&changed);
    let refused = world.wallet.finalize(&signed, &psbt).unwrap_err();
    assert_eq!(refused.code(), Code::SignerChangedTransaction);
}

#[test]
fn missing_wrong_and_partial_signatures_are_refused() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::new(kind);
        world.receive(50_000);
        let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
        let refused = world.wallet.finalize(&psbt, &psbt).unwrap_err();
        assert_eq!(refused, WalletError::Unsigned { input: 0 });
        assert_eq!(refused.code(), Code::SignerDidNotSign, "{kind}");

        // Valid, but of another transaction.
        let mut other = psbt.clone();
        other.unsigned_tx.lock_time = LockTime::ZERO;
        let mut wrong = world.sign(&other);
        wrong.unsigned_tx = psbt.unsigned_tx.clone();
        let refused = world.wallet.finalize(&wrong, &psbt).unwrap_err();
        assert_eq!(refused.code(), Code::SignerBadSignature, "{kind}");

        // Valid, but it leaves the outputs open.
        let mut open = psbt.clone();
        open.inputs[0].sighash_type = Some(match kind {
            "tr" => bitcoin::TapSighashType::None.into(),
            _ => EcdsaSighashType::None.into(),
        });
        let refused = world
            .wallet
            .finalize(&world.sign(&open), &psbt)
            .unwrap_err();
        assert_eq!(refused.code(), Code::SignerBadSignature, "{kind}");

        // Not a signature.
        let mut garbage = psbt.clone();
        garbage.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1u8; 5]]));
        let refused = world.wallet.finalize(&garbage, &psbt).unwrap_err();
        assert_eq!(refused.code(), Code::SignerBadSignature, "{kind}");
    }
}

#[test]
fn a_transaction_with_inputs_of_others_is_described_and_signed_for_its_own_part() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::new(kind);
        let paid = world.receive(100_000);
        let change = world.change_script();
        let anchor = TxOut {
            value: Amount::from_sat(330),
            script_pubkey: foreign(),
        };
        let tx = transaction(
            &[
                OutPoint::new(Txid::from_byte_array([5; 32]), 1),
                OutPoint::new(paid.compute_txid(), 0),
            ],
            vec![TxOut {
                value: Amount::from_sat(99_000),
                script_pubkey: change,
            }],
        );
        let mut built = Psbt::from_unsigned_tx(tx).unwrap();
        built.inputs[0].witness_utxo = Some(anchor);
        let psbt = world.wallet.describe(built.clone());
        assert_eq!(psbt.inputs[0], built.inputs[0], "others' inputs are left");
        assert_eq!(psbt.inputs[1].witness_utxo, Some(paid.output[0].clone()));
        if kind == "tr" {
            assert_eq!(psbt.inputs[1].tap_key_origins.len(), 1);
            assert_eq!(psbt.outputs[0].tap_key_origins.len(), 1);
            assert!(psbt.inputs[1].tap_internal_key.is_some());
        } else {
            assert_eq!(psbt.inputs[1].bip32_derivation.len(), 1);
            assert_eq!(psbt.outputs[0].bip32_derivation.len(), 1);
            assert_eq!(psbt.inputs[1].non_witness_utxo, Some(paid));
        }

        let mut signed = psbt.clone();
        let _ = signed.sign(&world.account.master, &Secp256k1::new());
        let tx = world.wallet.finalize_own(&signed, &psbt).unwrap();
        assert!(tx.input[0].witness.is_empty());
        assert!(!tx.input[1].witness.is_empty());
        let refused = world.wallet.finalize(&signed, &psbt);
        assert_eq!(refused, Err(WalletError::Unsigned { input: 0 }));
    }
}

#[test]
fn ldk_s_coin_selection_works_on_the_wallet() {
    use lightning::util::wallet_utils::{
        CoinSelectionSourceSync, Input, Utxo, WalletSourceSync, WalletSync,
    };
    use std::sync::Mutex;

    struct Source(Mutex<World>);
    impl WalletSourceSync for Source {
        fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
            Ok(self.0.lock().unwrap().wallet.confirmed_utxos())
        }
        fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
            self.0
                .lock()
                .unwrap()
                .wallet
                .transaction(outpoint.txid)
                .ok_or(())
        }
        fn get_change_script(&self) -> Result<ScriptBuf, ()> {
            Ok(self.0.lock().unwrap().change_script())
        }
        fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
            let world = self.0.lock().unwrap();
            let described = world.wallet.describe(psbt);
            let mut signed = described.clone();
            let _ = signed.sign(&world.account.master, &Secp256k1::new());
            world
                .wallet
                .finalize_own(&signed, &described)
                .map_err(|_| ())
        }
    }

    let mut world = World::new("wpkh");
    world.receive(10_000);
    world.receive(P2WPKH_DUST_SAT);
    let source = Source(Mutex::new(world));
    let wallet = WalletSync::new(
        &source,
        Arc::new(crate::ldk::logger::Logger {
            node: "test".into(),
        }),
    );
    let anchor = Input {
        outpoint: OutPoint::new(Txid::from_byte_array([5; 32]), 1),
        previous_utxo: TxOut {
            value: Amount::from_sat(330),
            script_pubkey: foreign(),
        },
        satisfaction_weight: 115,
    };
    let claim = Some(lightning::chain::ClaimId([1; 32]));
    let selected = wallet
        .select_confirmed_utxos(claim, vec![anchor.clone()], &[], 5_000, 400_000)
        .unwrap();
    assert_eq!(selected.confirmed_utxos.len(), 1);
    let change = selected.change_output.clone().unwrap();
    let again = wallet.select_confirmed_utxos(claim, vec![anchor.clone()], &[], 5_500, 400_000);
    assert_eq!(
        again.unwrap().change_output.unwrap().script_pubkey,
        change.script_pubkey
    );

    let own = selected.confirmed_utxos[0].outpoint();
    let mut psbt =
        Psbt::from_unsigned_tx(transaction(&[anchor.outpoint, own], vec![change])).unwrap();
    psbt.inputs[0].witness_utxo = Some(anchor.previous_utxo);
    let tx = wallet.sign_psbt(psbt).unwrap();
    assert!(tx.input[0].witness.is_empty() && !tx.input[1].witness.is_empty());
}
