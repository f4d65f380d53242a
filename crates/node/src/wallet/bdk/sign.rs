//! PSBTs to a signer and back, and signing with the keys of the descriptors. Also reads the descriptors.

use bdk_wallet::ChangeSet;
use bdk_wallet::KeychainKind;
use bdk_wallet::descriptor::{ExtendedDescriptor, IntoWalletDescriptor};
use bdk_wallet::keys::KeyMap;
use bdk_wallet::miniscript::descriptor::{DefiniteDescriptorKey, DescriptorSecretKey};
use bdk_wallet::miniscript::psbt::PsbtExt;
use bdk_wallet::miniscript::{Descriptor, ForEachKey};
use bitcoin::key::PrivateKey;
use bitcoin::psbt::{GetKey, GetKeyError, KeyRequest};
use bitcoin::secp256k1::{All, Secp256k1, Signing};
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{Network, NetworkKind, OutPoint, Psbt, Script, Transaction, ecdsa, psbt, taproot};

use super::{BdkWallet, WalletError};
use crate::wallet::{WalletSetup, WalletSigning, WalletTransactions};

impl WalletSigning for BdkWallet {
    fn describe(&self, mut psbt: Psbt) -> Psbt {
        for index in 0..psbt.inputs.len() {
            self.describe_input(&mut psbt, index);
        }
        for index in 0..psbt.outputs.len() {
            let own = psbt
                .unsigned_tx
                .output
                .get(index)
                .and_then(|output| self.bdk.derivation_of_spk(output.script_pubkey.clone()));
            if let Some(descriptor) = own.and_then(|own| self.descriptor_at(own)) {
                // The script is the descriptor's own, so this cannot fail.
                let _ = psbt.update_output_with_descriptor(index, &descriptor);
            }
        }
        psbt
    }

    fn finalize_own(&self, signed: &Psbt, unsigned: &Psbt) -> Result<Transaction, WalletError> {
        if signed.unsigned_tx != unsigned.unsigned_tx {
            return Err(WalletError::Changed);
        }
        let mut psbt = self.describe(unsigned.clone());
        for index in 0..psbt.inputs.len() {
            let outpoint = psbt.unsigned_tx.input[index].previous_output;
            if let Some(script) = self.own_script(outpoint) {
                let from = signed.inputs.get(index).ok_or(WalletError::Changed)?;
                take_signature(from, &mut psbt.inputs[index], script, index)?;
                psbt.finalize_inp_mut(self.bdk.secp_ctx(), index)
                    .map_err(|e| WalletError::BadSignature {
                        input: index,
                        reason: e.to_string(),
                    })?;
            }
        }
        let mut tx = psbt.unsigned_tx;
        for (input, from) in tx.input.iter_mut().zip(psbt.inputs) {
            input.script_sig = from.final_script_sig.unwrap_or_default();
            input.witness = from.final_script_witness.unwrap_or_default();
        }
        Ok(tx)
    }

    fn sign_locally(&self, psbt: &mut Psbt) -> Result<(), WalletError> {
        if self.keys.0.is_empty() {
            return Err(WalletError::NoKeys);
        }
        let described = self.describe(psbt.clone());
        *psbt = described;
        // Errors of inputs of others do not matter; own inputs are checked below.
        let _ = psbt.sign(&self.keys, self.bdk.secp_ctx());
        for (index, input) in psbt.unsigned_tx.input.iter().enumerate() {
            let own = self.own_script(input.previous_output).is_some();
            let signed = &psbt.inputs[index];
            if own && signed.partial_sigs.is_empty() && signed.tap_key_sig.is_none() {
                return Err(WalletError::Unsigned { input: index });
            }
        }
        Ok(())
    }

    fn holds_keys(&self) -> bool {
        !self.keys.0.is_empty()
    }
}

impl BdkWallet {
    fn describe_input(&self, psbt: &mut Psbt, index: usize) {
        let Some(outpoint) = psbt
            .unsigned_tx
            .input
            .get(index)
            .map(|input| input.previous_output)
        else {
            return;
        };
        let Some((own, output)) = self.bdk.spk_index().txout(outpoint) else {
            return;
        };
        let Some(descriptor) = self.descriptor_at(own) else {
            return;
        };
        let input = &mut psbt.inputs[index];
        input.witness_utxo = Some(output.clone());
        // A taproot signature commits to the amounts; for others the transaction proves them (BIP 174).
        input.non_witness_utxo = (!output.script_pubkey.is_p2tr())
            .then(|| self.transaction(outpoint.txid))
            .flatten();
        // The script is the descriptor's own, so this cannot fail.
        let _ = psbt.update_input_with_descriptor(index, &descriptor);
    }

    fn own_script(&self, outpoint: OutPoint) -> Option<&Script> {
        let (_, output) = self.bdk.spk_index().txout(outpoint)?;
        Some(&output.script_pubkey)
    }

    fn descriptor_at(
        &self,
        (keychain, index): (KeychainKind, u32),
    ) -> Option<Descriptor<DefiniteDescriptorKey>> {
        self.bdk
            .public_descriptor(keychain)
            .at_derivation_index(index)
            .ok()
    }
}

/// Copies a signer's signature from its PSBT into ours; nothing else of its PSBT is used.
fn take_signature(
    from: &psbt::Input,
    to: &mut psbt::Input,
    script: &Script,
    index: usize,
) -> Result<(), WalletError> {
    let bad = |reason: &str| WalletError::BadSignature {
        input: index,
        reason: reason.into(),
    };
    let unsigned = WalletError::Unsigned { input: index };
    to.final_script_witness = None;
    to.final_script_sig = None;
    to.partial_sigs.clear();
    let witness = from
        .final_script_witness
        .as_ref()
        .map(bitcoin::Witness::to_vec);
    if script.is_p2tr() {
        let signature = match witness.as_deref() {
            Some([signature]) => taproot::Signature::from_slice(signature)
                .map_err(|_| bad("it is not a signature"))?,
            Some(_) => return Err(bad("the witness is not one signature")),
            None => from.tap_key_sig.ok_or(unsigned)?,
        };
        if !matches!(
            signature.sighash_type,
            TapSighashType::Default | TapSighashType::All
        ) {
            return Err(bad("it does not cover the whole transaction"));
        }
        to.sighash_type = Some(signature.sighash_type.into());
        to.tap_key_sig = Some(signature);
        return Ok(());
    }
    let mut signatures = from.partial_sigs.clone();
    if let Some(witness) = witness {
        let [signature, key] = witness.as_slice() else {
            return Err(bad("the witness is not a signature and a key"));
        };
        let key = bitcoin::PublicKey::from_slice(key).map_err(|_| bad("the key is not one"))?;
        let signature =
            ecdsa::Signature::from_slice(signature).map_err(|_| bad("it is not a signature"))?;
        signatures.insert(key, signature);
    }
    signatures.retain(|key, _| to.bip32_derivation.contains_key(&key.inner));
    if signatures.is_empty() {
        return Err(unsigned);
    }
    if signatures
        .values()
        .any(|signature| signature.sighash_type != EcdsaSighashType::All)
    {
        return Err(bad("it does not cover the whole transaction"));
    }
    to.partial_sigs = signatures;
    Ok(())
}

/// The wallet's two descriptors, public.
pub(super) struct Descriptors {
    pub external: ExtendedDescriptor,
    pub internal: ExtendedDescriptor,
}

impl Descriptors {
    /// Reads both, and separates the secret keys from them.
    ///
    /// # Errors
    /// [`WalletError::Descriptor`] when one is of another kind, has a wrong checksum or another network's keys, or both are
    /// the same.
    pub fn parse(setup: &WalletSetup) -> Result<(Descriptors, Keys), WalletError> {
        let secp = Secp256k1::new();
        let (external, keys) = parse(&setup.external, setup.network, &secp)?;
        let (internal, internal_keys) = parse(&setup.internal, setup.network, &secp)?;
        if external == internal {
            return Err(WalletError::Descriptor("both are the same".into()));
        }
        let mut keys = Keys(keys);
        keys.0.extend(internal_keys);
        Ok((Descriptors { external, internal }, keys))
    }

    /// Checks that stored changes are of this wallet.
    pub fn check(&self, changes: Option<&ChangeSet>, network: Network) -> Result<(), WalletError> {
        let Some(changes) = changes else {
            return Ok(());
        };
        let other = |stored: &Option<ExtendedDescriptor>, ours| {
            stored.as_ref().is_some_and(|stored| stored != ours)
        };
        if other(&changes.descriptor, &self.external)
            || other(&changes.change_descriptor, &self.internal)
            || changes.network.is_some_and(|stored| stored != network)
        {
            return Err(WalletError::Stored(
                "it belongs to other keys or another network".into(),
            ));
        }
        Ok(())
    }
}

/// Reads a descriptor of one key and a range of scripts.
fn parse(
    text: &str,
    network: Network,
    secp: &Secp256k1<All>,
) -> Result<(ExtendedDescriptor, KeyMap), WalletError> {
    let bad = |reason: String| WalletError::Descriptor(reason);
    let (descriptor, keys) = text
        .into_wallet_descriptor(secp, NetworkKind::from(network))
        .map_err(|e| bad(e.to_string()))?;
    let single = match &descriptor {
        Descriptor::Wpkh(_) => true,
        Descriptor::Tr(tr) => tr.tap_tree().is_none(),
        _ => false,
    };
    let ranged = descriptor.has_wildcard() && !descriptor.is_multipath();
    if !single || !ranged {
        return Err(bad("it is of another kind".into()));
    }
    let hardened = descriptor.for_any_key(|key| key.has_hardened_step());
    if hardened {
        return Err(bad("its scripts need hardened derivation".into()));
    }
    Ok((descriptor, keys))
}

/// Secret account keys; erased when dropped.
pub(super) struct Keys(KeyMap);

impl GetKey for Keys {
    type Error = GetKeyError;

    fn get_key<C: Signing>(
        &self,
        request: KeyRequest,
        secp: &Secp256k1<C>,
    ) -> Result<Option<PrivateKey>, GetKeyError> {
        let keys = self.0.values();
        Ok(keys
            .into_iter()
            .find_map(|key| key.get_key(request.clone(), secp).ok().flatten()))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for key in self.0.values_mut() {
            if let DescriptorSecretKey::XPrv(key) = key {
                key.xkey.private_key.non_secure_erase();
            }
        }
    }
}
