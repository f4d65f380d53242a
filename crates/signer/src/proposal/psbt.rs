//! Transactions of the on-chain wallet (BIP 174): fundings of channels, the owner's payments, fees of closes.

use bitcoin::address::NetworkUnchecked;
use bitcoin::psbt::{Input, Output, Psbt};
use bitcoin::{Address, Amount, ScriptBuf, TxOut};
use longhand_proto::signer as proto;
use longhand_proto::signer::sign_psbt::Purpose;

use super::keys_id;
use crate::engine::Signer;
use crate::intents::OnchainIntent;
use crate::keys::{ADDRESSES, WalletAddress};
use crate::ledger::{Channel, KnownChannelIntent};
use crate::rules::Refused;

/// A transaction of the on-chain wallet.
pub(crate) struct OnChain<'a> {
    pub psbt: Psbt,
    /// The channels that it funds: the one that the host names, and every one on record with its txid, whatever the host says that
    /// it is for.
    pub funds: Vec<&'a Channel>,
    /// The owner's openings.
    pub openings: Vec<&'a KnownChannelIntent>,
    /// For each input, the output that it spends.
    pub spent: Vec<Spent>,
    /// The inputs that the phone has a key for.
    pub own: Vec<OwnInput>,
    /// The outputs that are not the owner's, by the derivations that the PSBT names.
    pub foreign: Vec<usize>,
    /// It pays the fee of a close, or of a transaction that the owner wants to confirm sooner (purpose `BUMP`).
    pub is_bump: bool,
    /// For a payment as such (purpose `SEND`): the owner's intents that it carries out. Those of an exact amount come first: a send of
    /// all that there is takes any.
    pub sends: Option<Vec<Send<'a>>>,
}

/// The output that an input spends.
pub(crate) enum Spent {
    Known(TxOut),
    /// The PSBT does not have it.
    Unknown,
    /// The PSBT has it twice, and not the same, or has a previous transaction that is another.
    Contradicted,
}

/// An input that the PSBT says is the phone's.
pub(crate) struct OwnInput {
    pub index: usize,
    pub address: WalletAddress,
}

/// An intent that a payment carries out.
pub(crate) struct Send<'a> {
    pub intent: &'a OnchainIntent,
    /// The amount of the payee's output.
    pub amount: Amount,
}

impl OnChain<'_> {
    /// The fee in satoshis; `None` when the PSBT does not say what its inputs spend, or spends less than it pays.
    pub fn fee_sat(&self) -> Option<u64> {
        let sum = |sum: Amount, value: Amount| sum.checked_add(value);
        let mut spent = self.spent.iter();
        let spent = spent.try_fold(Amount::ZERO, |all, spent| sum(all, spent.known()?.value))?;
        let mut paid = self.psbt.unsigned_tx.output.iter();
        let paid = paid.try_fold(Amount::ZERO, |all, output| sum(all, output.value))?;
        Some(spent.checked_sub(paid)?.to_sat())
    }
}

impl Spent {
    pub fn known(&self) -> Option<&TxOut> {
        match self {
            Spent::Known(output) => Some(output),
            Spent::Unknown | Spent::Contradicted => None,
        }
    }

    fn of(psbt: &Psbt, index: usize) -> Spent {
        let outpoint = psbt.unsigned_tx.input[index].previous_output;
        let input = &psbt.inputs[index];
        let Some(previous) = &input.non_witness_utxo else {
            let said = input.witness_utxo.clone();
            return said.map_or(Spent::Unknown, Spent::Known);
        };
        let spent = usize::try_from(outpoint.vout)
            .ok()
            .and_then(|vout| previous.output.get(vout));
        let said = input.witness_utxo.as_ref();
        match spent {
            Some(spent)
                if previous.compute_txid() == outpoint.txid
                    && said.is_none_or(|said| said == spent) =>
            {
                Spent::Known(spent.clone())
            }
            _ => Spent::Contradicted,
        }
    }
}

impl Signer {
    pub(super) fn read_psbt(
        &self,
        channel_keys_id: &[u8],
        op: &proto::SignPsbt,
    ) -> Result<OnChain<'_>, Refused> {
        let psbt = Psbt::deserialize(&op.psbt)
            .map_err(|_| Refused::malformed("the PSBT cannot be read"))?;
        if psbt.inputs.len() != psbt.unsigned_tx.input.len() {
            return Err(Refused::malformed(
                "the PSBT and its transaction have not the same inputs",
            ));
        }
        let named = match op.purpose() {
            Purpose::Funding => Some(self.channel(&keys_id(channel_keys_id)?)?),
            Purpose::Send | Purpose::Bump => None,
            Purpose::Unknown => return Err(Refused::malformed("the PSBT's purpose is not said")),
        };
        let mut funds: Vec<&Channel> = self.funded_by(&psbt).collect();
        let is_new = |named: &&Channel| !funds.iter().any(|known| std::ptr::eq(*known, *named));
        if let Some(named) = named.filter(is_new) {
            funds.push(named);
        }
        let spent: Vec<Spent> = (0..psbt.inputs.len())
            .map(|index| Spent::of(&psbt, index))
            .collect();
        let is_send = op.purpose() == Purpose::Send && funds.is_empty();
        let outputs = psbt
            .outputs
            .iter()
            .zip(&psbt.unsigned_tx.output)
            .enumerate();
        let foreign = outputs
            .filter(|(_, (known, output))| !self.is_own_output(known, &output.script_pubkey))
            .map(|(index, _)| index)
            .collect();
        Ok(OnChain {
            own: self.own_inputs(&psbt, &spent),
            foreign,
            is_bump: op.purpose() == Purpose::Bump && funds.is_empty(),
            sends: is_send.then(|| self.sends(&psbt)),
            openings: self.state.channel_intents.values().collect(),
            psbt,
            funds,
            spent,
        })
    }

    /// The channels on record whose funding transaction this is.
    fn funded_by(&self, psbt: &Psbt) -> impl Iterator<Item = &Channel> {
        let txid = psbt.unsigned_tx.compute_txid();
        self.state.channels.values().filter(move |channel| {
            let funding = channel.parameters.funding_outpoint;
            funding.is_some_and(|funding| funding.txid == txid)
        })
    }

    /// The inputs with a derivation (BIP 32) to a key of the phone. Without the output that it spends no input can be signed.
    fn own_inputs(&self, psbt: &Psbt, spent: &[Spent]) -> Vec<OwnInput> {
        let inputs = psbt.inputs.iter().zip(spent).enumerate();
        inputs
            .filter(|(_, (_, spent))| spent.known().is_some())
            .filter_map(|(index, (input, _))| {
                let address = self.input_address(input)?;
                Some(OwnInput { index, address })
            })
            .collect()
    }

    fn input_address(&self, input: &Input) -> Option<WalletAddress> {
        let segwit = input.bip32_derivation.values();
        let taproot = input.tap_key_origins.values().map(|(_, source)| source);
        let mut sources = segwit.chain(taproot);
        sources.find_map(|source| self.own().wallet_address(source))
    }

    fn sends(&self, psbt: &Psbt) -> Vec<Send<'_>> {
        let (exact, all): (Vec<_>, Vec<_>) = self
            .onchain_intents()
            .partition(|intent| intent.amount_sat > 0);
        let carried_out = |intent| {
            let amount = self.payee(intent, psbt)?.value;
            Some(Send { intent, amount })
        };
        exact
            .into_iter()
            .chain(all)
            .filter_map(carried_out)
            .collect()
    }

    /// The payee's output of a payment that carries out the intent: all others are the owner's. Of an intent that was given up it
    /// may be the owner's too.
    fn payee<'p>(&self, intent: &OnchainIntent, psbt: &'p Psbt) -> Option<&'p TxOut> {
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
        segwit.chain(taproot).any(|source| {
            let address = self.own().wallet_address(source);
            address.is_some_and(|own| own.index < ADDRESSES && own.script == *script)
        })
    }
}
