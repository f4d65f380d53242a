//! The on-chain wallet: PSBTs, sweeps of closed channels, and the check whether a script is the owner's.
//!
//! Signatures use no added entropy, so that a repeated operation gives the same ones.

use bitcoin::absolute::LockTime;
use bitcoin::address::NetworkUnchecked;
use bitcoin::bip32::KeySource;
use bitcoin::psbt::{Input, Output, Psbt};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{
    Address, Amount, EcdsaSighashType, ScriptBuf, TapSighashType, TxOut, Witness, ecdsa, taproot,
};
use lightning::ln::chan_utils::make_funding_redeemscript;
use lightning::sign::SpendableOutputDescriptor;
use longhand_proto::signer as proto;

use crate::commitment::read;
use crate::engine::{Answer, Change, Signer, channel_keys_id};
use crate::intents::OnchainIntent;
use crate::keys::{ADDRESSES, Account, Keychain, WalletKey};
use crate::ledger::Channel;
use crate::rules::{Refused, Rule};

/// The number of addresses of each keychain that are tried when the index of a script is not given.
const SEARCH: u32 = 1000;
/// The fee of a payment may be this part of its amount, when that is more than the intent's limit: the amount of one that sends all
/// is not known before.
const SEND_FEE_PERCENT: u64 = 5;
/// The weight for which an intent's fee limit is meant, in weight units.
const LIMIT_WEIGHT: u64 = 10_000;
/// Of an input's witness: a signature and a key, with their lengths.
const WITNESS_WEIGHT: u64 = 112;

impl Signer {
    /// Signs every input that is the phone's (P2WPKH of BIP 84, P2TR key path of BIP 86), and finalizes it. A payment has to be one that
    /// the owner asked for.
    pub(crate) fn sign_psbt(
        &self,
        keys_id: &[u8],
        op: &proto::SignPsbt,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        use proto::sign_psbt::Purpose;
        let mut psbt = Psbt::deserialize(&op.psbt)
            .map_err(|_| Refused::malformed("the PSBT cannot be read"))?;
        if psbt.inputs.len() != psbt.unsigned_tx.input.len() {
            return Err(Refused::malformed(
                "the PSBT and its transaction have not the same inputs",
            ));
        }
        let mut funds = false;
        match op.purpose() {
            Purpose::Funding => {
                self.check_funding(self.channel(&channel_keys_id(keys_id)?)?, &psbt)?;
                funds = true;
            }
            Purpose::Send | Purpose::Bump => {}
            Purpose::Unknown => return Err(Refused::malformed("the PSBT's purpose is not said")),
        }
        // Checked whatever the purpose: a transaction that funds a channel waits for that channel's first commitment.
        let txid = psbt.unsigned_tx.compute_txid();
        for channel in self.state.channels.values().filter(|c| {
            c.parameters
                .funding_outpoint
                .is_some_and(|o| o.txid == txid)
        }) {
            self.check_funding(channel, &psbt)?;
            funds = true;
        }
        let signed = self.sign_inputs(&mut psbt)?;
        if funds && (signed < psbt.inputs.len() || !psbt.inputs.iter().all(takes_no_script_sig)) {
            let message =
                "the channel's funding has an input that is not the phone's, or not proved to be";
            return Err(Refused::new(Rule::NotOurInput, message));
        }
        if signed == 0 {
            return Err(Refused::new(
                Rule::NotOurInput,
                "no input of the PSBT is this phone's to sign",
            ));
        }
        let is_send = op.purpose() == Purpose::Send && !funds;
        let changes = match is_send {
            true => self.check_send(&psbt, signed)?.into_iter().collect(),
            false => Vec::new(),
        };
        Ok((Answer::Psbt(psbt.serialize()), changes))
    }

    /// Checks a signed payment against the owner's intents. Returns the intent's new record, when it was not signed for before.
    fn check_send(&self, psbt: &Psbt, signed: usize) -> Result<Option<Change>, Refused> {
        if signed < psbt.inputs.len() || !psbt.inputs.iter().all(takes_no_script_sig) {
            let message = "the payment has an input that is not the phone's, or not proved to be";
            return Err(Refused::new(Rule::NotOurInput, message));
        }
        let unasked = |message: &str| Refused::new(Rule::SendUnasked, message);
        let fee_sat = fee_sat(psbt);
        // Those of an exact amount first: a send of all that there is takes any.
        let (exact, all): (Vec<_>, Vec<_>) = self
            .onchain_intents()
            .partition(|intent| intent.amount_sat > 0);
        let mut asked = exact.into_iter().chain(all);
        let mut paid = asked
            .by_ref()
            .filter_map(|it| Some((it, self.payee(it, psbt)?)));
        let Some(first) = paid.next() else {
            return Err(unasked(
                "this phone was not asked for this payment, or has signed another one for it",
            ));
        };
        let is_within = |(intent, payee): &(&OnchainIntent, &TxOut)| {
            let limit_sat = fee_limit_sat(intent, payee.value, psbt);
            fee_sat.is_some_and(|fee_sat| fee_sat <= limit_sat)
        };
        let within = std::iter::once(first).chain(paid).find(is_within);
        let (intent, _) = within.ok_or_else(|| {
            unasked("the fee is above the limit for this payment: give a fee rate to allow more")
        })?;
        if intent.spends.is_some() {
            return Ok(None);
        }
        let signed_for = OnchainIntent {
            spends: psbt.unsigned_tx.input.first().map(|it| it.previous_output),
            ..intent.clone()
        };
        Ok(Some(Change::OnchainIntent((&signed_for).into())))
    }

    /// The payee's output of a payment that carries out the intent: all others are the owner's. Of an intent that was given up it
    /// may be the owner's too.
    fn payee<'a>(&self, intent: &OnchainIntent, psbt: &'a Psbt) -> Option<&'a TxOut> {
        let tx = &psbt.unsigned_tx;
        let is_open = match &intent.spends {
            Some(spent) => tx.input.iter().any(|it| it.previous_output == *spent),
            None => intent.awaits_delivery,
        };
        let address: Address<NetworkUnchecked> = intent.address.parse().ok()?;
        let script = address.assume_checked().script_pubkey();
        let is_payee = |output: &TxOut| {
            let is_amount = match intent.amount_sat {
                // All: a reserve for channels may stay.
                0 => true,
                sat => output.value.to_sat() == sat,
            };
            is_amount && output.script_pubkey == script
        };
        let payee = tx.output.iter().position(is_payee);
        let may_go_back = intent.is_abandoned && intent.spends.is_some();
        if !is_open || (payee.is_none() && !may_go_back) {
            return None;
        }
        let mut outputs = psbt.outputs.iter().zip(&tx.output).enumerate();
        let are_own = outputs.all(|(index, (known, output))| {
            Some(index) == payee || self.is_own_output(known, &output.script_pubkey)
        });
        tx.output.get(payee.unwrap_or(0)).filter(|_| are_own)
    }

    /// Whether an output is the owner's, by the derivations that the PSBT names.
    fn is_own_output(&self, known: &Output, script: &ScriptBuf) -> bool {
        let segwit = known.bip32_derivation.values();
        let taproot = known.tap_key_origins.values().map(|(_, source)| source);
        segwit.chain(taproot).any(|(fingerprint, path)| {
            let index = path.into_iter().last();
            let is_found = index.is_some_and(|index| u32::from(*index) < ADDRESSES);
            let key = is_found.then(|| self.keys.wallet_key(*fingerprint, path));
            key.flatten().is_some_and(|key| key.script == *script)
        })
    }

    pub(crate) fn spend_outputs(&self, op: &proto::SpendOutputs) -> Result<Answer, Refused> {
        let change_script = ScriptBuf::from_bytes(op.change_script.clone());
        if self
            .script_at(op.change_keychain, op.change_index)
            .is_none_or(|scripts| !scripts.contains(&change_script))
        {
            return Err(Refused::new(
                Rule::NotOurScript,
                "the sweep would go to a script that is not the owner's",
            ));
        }
        let descriptors = op
            .descriptors
            .iter()
            .map(|bytes| read(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let descriptors: Vec<&SpendableOutputDescriptor> = descriptors.iter().collect();
        if descriptors.is_empty()
            || descriptors
                .iter()
                .any(|d| output(d).value > Amount::MAX_MONEY)
        {
            return Err(Refused::malformed(
                "there is nothing to sweep, or more than there is money",
            ));
        }
        let refused = || {
            Refused::new(
                Rule::NotOurOutput,
                "an output is not the owner's, or does not pay its fee",
            )
        };
        let secp = &self.keys.secp;
        let locktime = Some(LockTime::from_consensus(op.locktime));
        let (psbt, _) = SpendableOutputDescriptor::create_spendable_outputs_psbt(
            secp,
            &descriptors,
            Vec::new(),
            change_script,
            op.feerate_sat_per_kw,
            locktime,
        )
        .map_err(|()| refused())?;
        if psbt.unsigned_tx.output.is_empty() {
            return Err(refused());
        }
        let psbt =
            self.keys
                .deterministic_ldk()
                .sign_spendable_outputs_psbt(&descriptors, psbt, secp);
        let transaction = psbt
            .map_err(|()| refused())?
            .extract_tx_unchecked_fee_rate();
        Ok(Answer::Transaction(bitcoin::consensus::serialize(
            &transaction,
        )))
    }

    /// Whether `script` is an address of the owner's: the one at the given index, or one of the first of each keychain.
    pub(crate) fn is_own_script(&self, script: &ScriptBuf, keychain: u32, index: u32) -> bool {
        let said = self
            .script_at(keychain, index)
            .is_some_and(|scripts| scripts.contains(script));
        said || (0..SEARCH).any(|index| {
            Keychain::ALL.iter().any(|keychain| {
                Account::ALL.iter().any(|account| {
                    self.keys.script(*account, *keychain, index).as_ref() == Some(script)
                })
            })
        })
    }

    /// The scripts of both accounts at (keychain, index), if money may be sent there.
    fn script_at(&self, keychain: u32, index: u32) -> Option<[ScriptBuf; 2]> {
        if index >= ADDRESSES {
            return None;
        }
        let keychain = Keychain::try_from(keychain).ok()?;
        let [first, second] =
            Account::ALL.map(|account| self.keys.script(account, keychain, index));
        Some([first?, second?])
    }

    fn check_funding(&self, channel: &Channel, psbt: &Psbt) -> Result<(), Refused> {
        let parameters = &channel.parameters;
        let wrong = || {
            Refused::new(
                Rule::FundingOutput,
                "the transaction has not the channel's funding output",
            )
        };
        let (outpoint, peer) = parameters
            .funding_outpoint
            .zip(parameters.counterparty_pubkeys())
            .ok_or_else(wrong)?;
        let script = make_funding_redeemscript(
            &parameters.holder_pubkeys.funding_pubkey,
            &peer.funding_pubkey,
        )
        .to_p2wsh();
        let funding = TxOut {
            value: Amount::from_sat(parameters.channel_value_satoshis),
            script_pubkey: script,
        };
        let output = psbt.unsigned_tx.output.get(usize::from(outpoint.index));
        if psbt.unsigned_tx.compute_txid() != outpoint.txid || output != Some(&funding) {
            return Err(wrong());
        }
        if channel.holder_index().is_none() {
            let message =
                "the peer's signatures on the channel's first commitment are not on record yet";
            return Err(Refused::new(Rule::FundingBeforeValidate, message));
        }
        Ok(())
    }

    fn sign_inputs(&self, psbt: &mut Psbt) -> Result<usize, Refused> {
        let prevouts = (0..psbt.inputs.len())
            .map(|index| prevout(psbt, index))
            .collect::<Result<Vec<_>, _>>()?;
        let mut witnesses = Vec::new();
        for (index, input) in psbt.inputs.iter().enumerate() {
            if let Some((key, prevout)) = self.input_key(input).zip(prevouts[index].as_ref()) {
                if prevout.script_pubkey != key.script {
                    let message = "an input is said to be the phone's and is not";
                    return Err(Refused::new(Rule::NotOurInput, message));
                }
                witnesses.push((index, self.witness(psbt, index, &key, &prevouts)?));
            }
        }
        let signed = witnesses.len();
        for (index, witness) in witnesses {
            let input = &mut psbt.inputs[index];
            input.partial_sigs.clear();
            input.tap_key_sig = None;
            input.final_script_witness = Some(witness);
        }
        Ok(signed)
    }

    /// The phone's key for an input, by the derivations that the PSBT names.
    fn input_key(&self, input: &Input) -> Option<WalletKey> {
        let segwit = input.bip32_derivation.values();
        let taproot = input.tap_key_origins.values().map(|(_, source)| source);
        let key = |source: &KeySource| self.keys.wallet_key(source.0, &source.1);
        segwit.chain(taproot).find_map(key)
    }

    fn witness(
        &self,
        psbt: &Psbt,
        index: usize,
        key: &WalletKey,
        prevouts: &[Option<TxOut>],
    ) -> Result<Witness, Refused> {
        let odd = || {
            Refused::new(
                Rule::NotOurInput,
                "an input asks for a signature that does not cover everything",
            )
        };
        let lacks = || Refused::malformed("the PSBT does not say what its inputs spend");
        let secp = &self.keys.secp;
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        let asked = psbt.inputs[index].sighash_type;
        match key.account {
            Account::Bip84 => {
                if asked.is_some_and(|kind| kind != EcdsaSighashType::All.into()) {
                    return Err(odd());
                }
                let prevout = prevouts[index].as_ref().ok_or_else(lacks)?;
                let sighash = cache
                    .p2wpkh_signature_hash(
                        index,
                        &prevout.script_pubkey,
                        prevout.value,
                        EcdsaSighashType::All,
                    )
                    .map_err(|_| lacks())?;
                let signature = secp.sign_ecdsa_low_r(&Message::from(sighash), &key.secret);
                Ok(Witness::p2wpkh(
                    &ecdsa::Signature::sighash_all(signature),
                    &key.secret.public_key(secp),
                ))
            }
            Account::Bip86 => {
                if asked.is_some_and(|kind| kind != TapSighashType::Default.into()) {
                    return Err(odd());
                }
                let prevouts = prevouts
                    .iter()
                    .cloned()
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(lacks)?;
                let sighash = cache
                    .taproot_key_spend_signature_hash(
                        index,
                        &Prevouts::All(&prevouts),
                        TapSighashType::Default,
                    )
                    .map_err(|_| lacks())?;
                let signature = secp
                    .sign_schnorr_no_aux_rand(&Message::from(sighash), &key.taproot_keypair(secp));
                let sighash_type = TapSighashType::Default;
                Ok(Witness::p2tr_key_spend(&taproot::Signature {
                    signature,
                    sighash_type,
                }))
            }
        }
    }
}

/// The most that a payment may cost. The intent's limit is for [`LIMIT_WEIGHT`], and more in proportion for a heavier transaction:
/// how many coins it spends is the wallet's choice.
fn fee_limit_sat(intent: &OnchainIntent, amount: Amount, psbt: &Psbt) -> u64 {
    let inputs = psbt.inputs.len() as u64;
    let weight = psbt.unsigned_tx.weight().to_wu() + WITNESS_WEIGHT * inputs;
    let heavier = intent.max_fee_sat.saturating_mul(weight) / LIMIT_WEIGHT;
    let percent = amount.to_sat() / 100 * SEND_FEE_PERCENT;
    intent.max_fee_sat.max(heavier).max(percent)
}

/// The fee in satoshis; `None` when the PSBT does not say what its inputs spend, or spends less than it pays.
fn fee_sat(psbt: &Psbt) -> Option<u64> {
    let mut spent = (0..psbt.inputs.len()).map(|index| Some(prevout(psbt, index).ok()??.value));
    let sum = |sum: Amount, value: Amount| sum.checked_add(value);
    let spent = spent.try_fold(Amount::ZERO, |all, value| sum(all, value?))?;
    let mut paid = psbt.unsigned_tx.output.iter().map(|output| output.value);
    let paid = paid.try_fold(Amount::ZERO, sum)?;
    Some(spent.checked_sub(paid)?.to_sat())
}

/// The output that an input spends, if the PSBT has it; what the PSBT has twice must agree.
fn prevout(psbt: &Psbt, index: usize) -> Result<Option<TxOut>, Refused> {
    let lie = || {
        Refused::new(
            Rule::NotOurInput,
            "the PSBT contradicts itself about what an input spends",
        )
    };
    let outpoint = psbt.unsigned_tx.input[index].previous_output;
    let input = &psbt.inputs[index];
    let Some(previous) = &input.non_witness_utxo else {
        return Ok(input.witness_utxo.clone());
    };
    let spent = usize::try_from(outpoint.vout)
        .ok()
        .and_then(|vout| previous.output.get(vout));
    let agrees = previous.compute_txid() == outpoint.txid
        && spent.is_some()
        && input
            .witness_utxo
            .as_ref()
            .is_none_or(|said| Some(said) == spent);
    if agrees {
        Ok(spent.cloned())
    } else {
        Err(lie())
    }
}

/// Whether an input that the phone has signed cannot change the transaction's txid, on which a channel's commitments depend.
///
/// A P2WPKH signature is valid for P2SH around the same key too, which has a scriptSig, so that the output must be given. A taproot
/// signature commits to the outputs that all inputs spend.
fn takes_no_script_sig(input: &Input) -> bool {
    let spent = input.witness_utxo.as_ref();
    input.non_witness_utxo.is_some() || spent.is_some_and(|out| out.script_pubkey.is_p2tr())
}

fn output(descriptor: &SpendableOutputDescriptor) -> &TxOut {
    match descriptor {
        SpendableOutputDescriptor::StaticOutput { output, .. } => output,
        SpendableOutputDescriptor::DelayedPaymentOutput(descriptor) => &descriptor.output,
        SpendableOutputDescriptor::StaticPaymentOutput(descriptor) => &descriptor.output,
    }
}
