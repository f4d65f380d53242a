//! The wallet's errors.

use longhand_proto::Code;

/// Why the wallet refused a call. Nothing has changed when one is returned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Not enough that can be spent now.
    #[error(
        "the on-chain wallet needs {needed_sat} sat for this (amount, fee and reserve) and can spend \
         {available_sat} sat: add funds, wait for confirmations or choose a smaller amount"
    )]
    InsufficientFunds {
        /// Amount, fee and what is to be kept, in satoshis.
        needed_sat: u64,
        /// Satoshis that can be spent: confirmed or own change, and not reserved.
        available_sat: u64,
    },
    /// As [`WalletError::InsufficientFunds`], while coins are held, see [`WalletChain::hold_coins`].
    ///
    /// [`WalletChain::hold_coins`]: crate::wallet::WalletChain::hold_coins
    #[error(
        "the on-chain wallet needs {needed_sat} sat for this (amount, fee and reserve) and can spend \
         {available_sat} sat: {held_sat} sat more can be spent when the chain has been searched for this wallet's \
         coins; `info` shows how far that is"
    )]
    Held {
        /// Amount, fee and what is to be kept, in satoshis.
        needed_sat: u64,
        /// Satoshis that can be spent now.
        available_sat: u64,
        /// Satoshis that may be spent already, in blocks that were not searched.
        held_sat: u64,
    },
    /// Bitcoin nodes do not relay an output of so little.
    #[error("{amount_sat} sat is too little for an on-chain output: send at least {limit_sat} sat")]
    BelowDust {
        /// As asked for.
        amount_sat: u64,
        /// The least for that script.
        limit_sat: u64,
    },
    /// The transaction would be heavier than Bitcoin nodes relay, since its inputs are many and small.
    #[error("the amount lies in {inputs} outputs, too many for one transaction: send it in parts")]
    TooManyInputs {
        /// Their number.
        inputs: u64,
    },
    /// Below the fee rate that Bitcoin nodes relay, or absurdly high.
    #[error(
        "a fee rate of {sat_per_kw} sat/kw cannot be used: choose one between {min} and {max} sat/kw"
    )]
    FeeRate {
        /// As asked for.
        sat_per_kw: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// The fee of a transaction in the place of another is too low.
    #[error("the fee rate is too low: give more than {sat_per_kw} sat/kw (250 = 1 sat/vB)")]
    FeeTooLow {
        /// The least that Bitcoin nodes take, or the rate that it has already.
        sat_per_kw: u32,
    },
    /// There is nothing to give a higher fee to.
    #[error(
        "this is no unconfirmed transaction of this wallet whose fee can be raised: list them with `sends`, or wait"
    )]
    NotReplaceable,
    /// A transaction that spends the change of this one would be gone with it.
    #[error(
        "another transaction spends the change of this one: raise the fee of that one, which pays for both, or wait"
    )]
    HasChild,
    /// The descriptors are of another kind than the wallet takes.
    #[error(
        "the wallet's descriptors cannot be used ({0}): give wpkh or tr descriptors of one ranged account key each"
    )]
    Descriptor(String),
    /// A record is damaged, of a newer version, or of another wallet.
    #[error(
        "the stored on-chain wallet cannot be loaded ({0}): restore it from a backup, do not delete it"
    )]
    Stored(String),
    /// A block was skipped.
    #[error(
        "block {height} does not follow the wallet's last block {tip}: subscribe again from that one"
    )]
    OutOfOrder {
        /// Height of the block.
        height: u32,
        /// Height of the wallet's tip.
        tip: u32,
    },
    /// The transaction could not be built for another reason than the amounts.
    #[error("the transaction could not be built ({0}): try again, and report this if it stays")]
    Build(String),
    /// The signer returned another transaction than the one it was given.
    #[error(
        "the signer returned a different transaction than the one it was asked to sign: it was not used"
    )]
    Changed,
    /// A signature is missing.
    #[error(
        "the signer did not sign input {input} of the transaction: sign it again with this wallet's keys"
    )]
    Unsigned {
        /// Index of the input.
        input: usize,
    },
    /// A signature is wrong.
    #[error(
        "the signature on input {input} of the transaction is not valid ({reason}): \
         sign it again with this wallet's keys"
    )]
    BadSignature {
        /// Index of the input.
        input: usize,
        /// The reason.
        reason: String,
    },
    /// The wallet only watches: it has no private keys.
    #[error("this wallet holds no keys: its owner's signer has to sign")]
    NoKeys,
}

impl WalletError {
    /// A stable code, for programs.
    pub fn code(&self) -> Code {
        match self {
            WalletError::InsufficientFunds { .. } => Code::InsufficientFunds,
            WalletError::Held { .. } => Code::WalletSearching,
            WalletError::BelowDust { .. } => Code::AmountDust,
            WalletError::TooManyInputs { .. } => Code::TooManyInputs,
            WalletError::FeeRate { .. } => Code::FeerateOutOfRange,
            WalletError::FeeTooLow { .. } => Code::FeeTooLow,
            WalletError::NotReplaceable => Code::NotReplaceable,
            WalletError::HasChild => Code::ChangeSpent,
            WalletError::Descriptor(_) => Code::BadDescriptor,
            WalletError::Stored(_) => Code::WalletUnreadable,
            WalletError::OutOfOrder { .. } => Code::BlockOutOfOrder,
            WalletError::Build(_) => Code::TransactionNotBuilt,
            WalletError::Changed => Code::SignerChangedTransaction,
            WalletError::Unsigned { .. } => Code::SignerDidNotSign,
            WalletError::BadSignature { .. } => Code::SignerBadSignature,
            WalletError::NoKeys => Code::NoKeys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_wallet_library_alone_can_explain_has_a_code_of_its_own() {
        let error = WalletError::Build("no reason is known to cause this".into());
        assert_eq!(error.code(), Code::TransactionNotBuilt);
        assert!(error.code().is_final());
    }
}
