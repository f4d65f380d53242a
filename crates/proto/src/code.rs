//! The error codes of all programs of Longhand: one table.
//!
//! `docs/ERRORS.md` is made from it. A code is stable: programs match on it, while the line for a person beside it may change.

use std::fmt;
use std::str::FromStr;

use crate::command::Error;
use crate::command::error::Action;

macro_rules! codes {
    ($($group:literal { $($code:ident = $name:literal, $action:ident $($is_final:ident)?, $meaning:literal;)* })*) => {
        /// What went wrong, for programs.
        ///
        /// ```
        /// use longhand_proto::Code;
        /// use longhand_proto::command::error::Action;
        ///
        /// assert_eq!("SIGNER_AWAY".parse(), Ok(Code::SignerAway));
        /// assert_eq!(Code::SignerAway.action(), Action::WaitForPhone);
        /// // The command may still be carried out, so it must not be given again as a new one.
        /// assert!(!Code::SignerAway.is_final());
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $meaning] $code,)*)*
        }

        impl Code {
            /// All of them, as `docs/ERRORS.md` has them.
            pub const ALL: &[Code] = &[$($(Code::$code,)*)*];

            /// As it is sent and shown: upper case.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Code::$code => $name,)*)* }
            }

            /// What to do about it.
            pub const fn action(self) -> Action {
                match self { $($(Code::$code => Action::$action,)*)* }
            }

            /// One sentence for documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $($(Code::$code => $meaning,)*)* }
            }

            /// The part of the documentation that it stands in.
            pub const fn group(self) -> &'static str {
                match self { $($(Code::$code => $group,)*)* }
            }

            const fn is_marked_final(self) -> bool {
                match self { $($(Code::$code => codes!(@is_final $($is_final)?),)*)* }
            }
        }
    };
    (@is_final) => { false };
    (@is_final is_final) => { true };
}

codes! {
    "The owner's input, refused by the phone or the node before anything is done" {
        AddressMalformed = "ADDRESS_MALFORMED", FixInput, "The text is no bitcoin address.";
        AlreadyPaid = "ALREADY_PAID", FixInput, "The invoice is paid, or its payment is under way.";
        AmountDiffers = "AMOUNT_DIFFERS", FixInput, "Two amounts were given that are not the same.";
        AmountDust = "AMOUNT_DUST", FixInput, "The network relays no output of so small an amount.";
        AmountMissing = "AMOUNT_MISSING", FixInput, "The invoice or address has no amount, and none was given.";
        AmountTooLarge = "AMOUNT_TOO_LARGE", FixInput, "The amount is more than there can be.";
        AmountZero = "AMOUNT_ZERO", FixInput, "The amount must be above zero.";
        AppNameMalformed = "APP_NAME_MALFORMED", FixInput, "An app has a name of 1 to 32 characters.";
        AppNameTaken = "APP_NAME_TAKEN", FixInput, "The owner has an app of this name.";
        AppUnknown = "APP_UNKNOWN", FixInput, "The owner has no app of this name.";
        BadAppRights = "BAD_APP_RIGHTS", FixInput, "An app has at least one right, and those of an operator's app only read.";
        BadId = "BAD_ID", FixInput, "The id of a command has another length than 16 bytes.";
        BadFees = "BAD_FEES", FixInput, "The fees for forwarding are out of range.";
        BadRegistration = "BAD_REGISTRATION", FixInput, "A phone registers keys that cannot be of one wallet.";
        BadWakeUrl = "BAD_WAKE_URL", FixInput, "The wake URL is none that the host calls.";
        BelowMinimumFee = "BELOW_MINIMUM_FEE", FixInput, "The chain source relays nothing at so low a fee rate.";
        ChannelIdMalformed = "CHANNEL_ID_MALFORMED", FixInput, "The text is no channel id.";
        ChannelTooSmall = "CHANNEL_TOO_SMALL", FixInput, "A channel needs more satoshis.";
        CursorMalformed = "CURSOR_MALFORMED", FixInput, "The text is no cursor of a page of payments.";
        DateMalformed = "DATE_MALFORMED", FixInput, "The text is no date.";
        DateOutOfRange = "DATE_OUT_OF_RANGE", FixInput, "The date is in the future, or before bitcoin.";
        DescriptionTooLong = "DESCRIPTION_TOO_LONG", FixInput, "An invoice holds a shorter description.";
        ExpiryZero = "EXPIRY_ZERO", FixInput, "The expiry must be above zero.";
        FeeLimit = "FEE_LIMIT", FixInput, "Routes exist, but none within the fee limit.";
        FeeTooLow = "FEE_TOO_LOW", FixInput, "A replacement must pay a higher fee (BIP 125).";
        FeerateOutOfRange = "FEERATE_OUT_OF_RANGE", FixInput, "The fee rate is below or above any that makes sense; see the unit.";
        FileUnreadable = "FILE_UNREADABLE", FixInput, "A file that was named cannot be read.";
        ForcedClose = "FORCED_CLOSE", FixInput, "A forced close pays to the wallet, so it takes no address.";
        HostCommand = "HOST_COMMAND", FixInput, "The command is one for the host, not for a node.";
        InputMissing = "INPUT_MISSING", FixInput, "Standard input ended before what it should have.";
        InsufficientFunds = "INSUFFICIENT_FUNDS", FixInput, "There is less than this needs, with its fees and reserves.";
        InvoiceExpired = "INVOICE_EXPIRED", FixInput, "The invoice has expired.";
        InvoiceMalformed = "INVOICE_MALFORMED", FixInput, "The text is no BOLT 11 invoice, or one that cannot be used.";
        InvoiceOwn = "INVOICE_OWN", FixInput, "The invoice is the node's own.";
        LimitMalformed = "LIMIT_MALFORMED", FixInput, "There is no such limit of the phone's, or it cannot have that value.";
        LimitReached = "LIMIT_REACHED", FixInput, "A limit that the owner has set on the phone does not allow it.";
        NotAHub = "NOT_A_HUB", FixInput, "Only a hub does that.";
        NotAPayment = "NOT_A_PAYMENT", FixInput, "No on-chain payment of this wallet has that transaction id.";
        NotConfirmed = "NOT_CONFIRMED", FixInput, "A person answered no, or nobody was there to ask.";
        NotReplaceable = "NOT_REPLACEABLE", FixInput, "The transaction is confirmed, or cannot be replaced.";
        NotSignedYet = "NOT_SIGNED_YET", FixInput, "The transaction is not signed yet, so there is none to replace.";
        ChangeSpent = "CHANGE_SPENT", FixInput, "The transaction cannot be replaced: its change is spent.";
        NoFeeEstimate = "NO_FEE_ESTIMATE", FixInput, "The chain source has no estimate, so a fee rate must be given.";
        NoHub = "NO_HUB", FixInput, "The host has no hub, so a peer must be named.";
        NoInbound = "NO_INBOUND", FixInput, "No channel can receive so much.";
        NoPeerAddress = "NO_PEER_ADDRESS", FixInput, "The node is not connected to this peer, and no address was given.";
        NoSuchChannel = "NO_SUCH_CHANNEL", FixInput, "The node has no channel with this id.";
        PayeeRefused = "PAYEE_REFUSED", FixInput, "The payee refused the payment: its invoice is no longer good.";
        PaymentHashMalformed = "PAYMENT_HASH_MALFORMED", FixInput, "The text is no payment hash.";
        PaymentUnknown = "PAYMENT_UNKNOWN", FixInput, "No payment of this wallet has this hash.";
        PeerMalformed = "PEER_MALFORMED", FixInput, "The text is no node id, or no address of a node.";
        PushRefused = "PUSH_REFUSED", FixInput, "Only a hub gives funds away with a new channel.";
        SeedInvalid = "SEED_INVALID", FixInput, "The words are no BIP 39 mnemonic.";
        NoAppMailbox = "NO_APP_MAILBOX", FixInput, "The host has no mailbox with Lightning Node Connect, over which apps come.";
        TooManyApps = "TOO_MANY_APPS", FixInput, "An owner has at most sixteen apps.";
        TooManyInputs = "TOO_MANY_INPUTS", FixInput, "The payment needs more coins than one transaction can spend.";
        TooManyWakeUrls = "TOO_MANY_WAKE_URLS", FixInput, "A phone has at most four wake URLs.";
        TxidMalformed = "TXID_MALFORMED", FixInput, "The text is no transaction id.";
        UnknownFeatures = "UNKNOWN_FEATURES", FixInput, "The invoice requires features that this node does not have.";
        UriMalformed = "URI_MALFORMED", FixInput, "The text is no BIP 21 or lightning: URI.";
        UriUnknown = "URI_UNKNOWN", FixInput, "The URI requires something that this phone does not know.";
        UriWithoutAddress = "URI_WITHOUT_ADDRESS", FixInput, "The URI has no bitcoin address.";
        UriWithoutInvoice = "URI_WITHOUT_INVOICE", FixInput, "The URI has no invoice.";
        WakeUrlTooLong = "WAKE_URL_TOO_LONG", FixInput, "A wake URL is at most 512 bytes long.";
        WrongNetwork = "WRONG_NETWORK", FixInput, "It is of another bitcoin network.";
    }
    "The node" {
        Abandoned = "ABANDONED", FixInput, "The on-chain payment was given up; its coins are back.";
        Abandoning = "ABANDONING", Retry, "The on-chain payment is being given up; a block decides.";
        ChannelClosed = "CHANNEL_CLOSED", Retry is_final, "The channel closed before it was open.";
        ChannelRefused = "CHANNEL_REFUSED", Retry is_final, "LDK or the peer refused the channel.";
        ChannelGone = "CHANNEL_GONE", GiveUp is_final, "The channel was open, and has closed.";
        CloseRefused = "CLOSE_REFUSED", Retry, "LDK does not close the channel now.";
        DeadlineMissed = "DEADLINE_MISSED", GiveUp, "An incoming payment was lost: the phone came back too late for its preimage.";
        Expired = "EXPIRED", Retry is_final, "The phone did not sign it in time; nothing was spent.";
        FundingConflicted = "FUNDING_CONFLICTED", GiveUp is_final, "Another transaction spent the coins of the funding.";
        Interrupted = "INTERRUPTED", Retry is_final, "The host or the phone stopped before it was done; nothing was spent.";
        NodeRestarted = "NODE_RESTARTED", Retry, "The node met an internal error and was loaded again.";
        NodeStopped = "NODE_STOPPED", Retry, "The node has stopped.";
        NoRoute = "NO_ROUTE", Retry, "No route to the payee can carry the payment.";
        PairingRenewed = "PAIRING_RENEWED", Retry is_final, "Another phone had asked for it before the pairing was renewed.";
        PaymentFailed = "PAYMENT_FAILED", Retry, "The payment failed; the payee has not received it.";
        PeerAway = "PEER_AWAY", Retry, "A channel that this needs has a peer that is away.";
        PeerUnreachable = "PEER_UNREACHABLE", Retry is_final, "The peer does not answer at any address.";
        RefusedByNetwork = "REFUSED_BY_NETWORK", Retry, "The chain source does not take the transaction.";
        SignerAway = "SIGNER_AWAY", WaitForPhone, "The phone is not connected, and this needs its signature.";
        SignerRefused = "SIGNER_REFUSED", Retry is_final, "A rule of the phone's signer refuses it.";
        TooManyOpenings = "TOO_MANY_OPENINGS", Retry, "Too many channels are being opened at once.";
        TooManyPeers = "TOO_MANY_PEERS", Retry, "The node dials too many peers at once.";
        WalletSearching = "WALLET_SEARCHING", Retry is_final, "The wallet still searches the chain for its coins.";
        BlockOutOfOrder = "BLOCK_OUT_OF_ORDER", Retry is_final, "A block does not follow the wallet's tip.";
        BadDescriptor = "BAD_DESCRIPTOR", GiveUp is_final, "The wallet's descriptor cannot be used.";
        NoKeys = "NO_KEYS", GiveUp is_final, "The wallet only watches; its owner's signer has to sign.";
        SignerBadSignature = "SIGNER_BAD_SIGNATURE", GiveUp is_final, "The signer gave a signature that is not valid.";
        SignerChangedTransaction = "SIGNER_CHANGED_TRANSACTION", GiveUp is_final, "The signer returned another transaction than it was given.";
        SignerDidNotSign = "SIGNER_DID_NOT_SIGN", GiveUp is_final, "The signer left a signature out.";
        TransactionNotBuilt = "TRANSACTION_NOT_BUILT", GiveUp is_final, "The wallet library could not build the transaction.";
        WalletUnreadable = "WALLET_UNREADABLE", GiveUp is_final, "The wallet's records cannot be read.";
        AlreadyRegistered = "ALREADY_REGISTERED", FixInput, "The node has other keys than those that the phone registers.";
        Internal = "INTERNAL", Retry, "Something that should not happen did: report it.";
    }
    "The host" {
        BadRequest = "BAD_REQUEST", GiveUp is_final, "The request cannot be read, or has a field that cannot be.";
        ChainUnauthorized = "CHAIN_UNAUTHORIZED", FixInput, "The chain source refuses the host's password.";
        ChainUnavailable = "CHAIN_UNAVAILABLE", Retry, "The chain source is not reached.";
        KeysNotShown = "KEYS_NOT_SHOWN", GiveUp, "The phone did not prove that it has the node's key.";
        NodeFailed = "NODE_FAILED", GiveUp, "The owner's node does not run: the operator has to act.";
        NodeTaken = "NODE_TAKEN", GiveUp, "Another owner of this host has this node.";
        NodeUnclear = "NODE_UNCLEAR", Retry, "Whether another owner has this node is not known now.";
        NotRegistered = "NOT_REGISTERED", FixInput, "The phone has not registered its keys.";
        OwnerKeysDiffer = "OWNER_KEYS_DIFFER", GiveUp, "The owner's node has other keys.";
        StoreFailed = "STORE_FAILED", Retry, "The host could not write it down; nothing was done.";
        UnknownCommand = "UNKNOWN_COMMAND", GiveUp is_final, "The host is older than the command.";
        UnknownKind = "UNKNOWN_KIND", GiveUp is_final, "Requests of this kind are not served there.";
    }
    "The operator's requests" {
        OwnerExists = "OWNER_EXISTS", FixInput, "The host has an owner of this name.";
        OwnerNotFound = "OWNER_NOT_FOUND", FixInput, "The host has no owner of this name.";
        OwnerUnreadable = "OWNER_UNREADABLE", GiveUp, "The owner's record cannot be read.";
        OwnerName = "OWNER_NAME", FixInput, "The name has characters that a name cannot have.";
        OwnerNotPaired = "OWNER_NOT_PAIRED", FixInput, "No phone is paired for this owner.";
        NodeNotRunning = "NODE_NOT_RUNNING", Retry, "The node does not run yet.";
        HostStopped = "HOST_STOPPED", Retry, "The host has stopped, or stops now.";
        Unauthenticated = "UNAUTHENTICATED", FixInput, "The operator's token is missing or wrong.";
        OperatorInput = "OPERATOR_INPUT", FixInput, "A field of the request is missing, or cannot be.";
        OperatorUnreachable = "OPERATOR_UNREACHABLE", Retry, "The host does not answer at its operator's address.";
    }
    "The link" {
        Busy = "BUSY", Retry, "Too many requests are in execution.";
        Dead = "DEAD", Retry, "Nothing was received for too long.";
        Detached = "DETACHED", Retry, "The phone detached as it was asked to.";
        Forgotten = "FORGOTTEN", Retry, "The answer was given so long ago that it is not kept.";
        HandshakeBroken = "HANDSHAKE_BROKEN", Retry, "The connection broke during the handshake.";
        HandshakeFailed = "HANDSHAKE_FAILED", GiveUp, "The other side has other keys, or speaks another protocol.";
        HostRestarted = "HOST_RESTARTED", Retry, "The host restarted before it answered.";
        HostUnreachable = "HOST_UNREACHABLE", Retry, "The host does not answer at any of its addresses.";
        CarrierUnknown = "CARRIER_UNKNOWN", FixInput, "No carrier of this program takes the address.";
        LinkFailed = "LINK_FAILED", Retry, "The link cannot be set up.";
        Lost = "LOST", Retry, "The connection broke.";
        PairingExpired = "PAIRING_EXPIRED", FixInput, "The pairing code has expired.";
        PairingMalformed = "PAIRING_MALFORMED", FixInput, "The text is no pairing code.";
        PairingUnknown = "PAIRING_UNKNOWN", FixInput, "The host does not know this pairing code.";
        PairingUsed = "PAIRING_USED", FixInput, "Another phone has used the pairing code.";
        PairingVersion = "PAIRING_VERSION", FixInput, "The pairing code is of another version.";
        Protocol = "PROTOCOL", Retry, "The other side broke the protocol.";
        Replaced = "REPLACED", GiveUp, "A newer link of the same phone took over.";
        Shutdown = "SHUTDOWN", Retry, "The process is stopping.";
        TooLarge = "TOO_LARGE", FixInput, "The message is larger than the link takes.";
        Unanswered = "UNANSWERED", Retry, "Nobody answers requests there.";
        Unavailable = "UNAVAILABLE", Retry, "It cannot be done now.";
        UnknownOwner = "UNKNOWN_OWNER", GiveUp, "The host does not know this phone.";
        Version = "VERSION", GiveUp, "The other side speaks another version.";
        WrongHost = "WRONG_HOST", GiveUp, "The host at this address is not the one of the pairing code.";
    }
    "The phone" {
        AnswerMalformed = "ANSWER_MALFORMED", GiveUp, "The host's answer does not fit the command.";
        ControlFailed = "CONTROL_FAILED", Retry, "The running phone is not reached by its control socket.";
        HostAway = "HOST_AWAY", Retry, "The host could not be reached in time; nothing is done twice.";
        LedgerDamaged = "LEDGER_DAMAGED", GiveUp, "The signer's ledger is damaged.";
        LedgerMissing = "LEDGER_MISSING", GiveUp, "The signer's ledger is missing.";
        LedgerOld = "LEDGER_OLD", GiveUp, "The signer's ledger is older than one that was used.";
        LedgerUnusable = "LEDGER_UNUSABLE", GiveUp, "The signer cannot be restored from its ledger.";
        LedgerUnwritable = "LEDGER_UNWRITABLE", Retry, "The signer's ledger cannot be written, so nothing is signed.";
        NotAttached = "NOT_ATTACHED", Retry, "The phone is not attached.";
        NotOurs = "NOT_OURS", GiveUp, "The host presented something as the phone's that is not.";
        NotPaired = "NOT_PAIRED", FixInput, "The phone is not paired with a host.";
        NoHome = "NO_HOME", FixInput, "There is no home directory, so a directory must be given.";
        PairedElsewhere = "PAIRED_ELSEWHERE", FixInput, "The phone is paired with another host.";
        PassphraseDiffers = "PASSPHRASE_DIFFERS", FixInput, "The passphrase was typed in two ways.";
        PassphraseEmpty = "PASSPHRASE_EMPTY", FixInput, "The passphrase is empty.";
        PassphraseMissing = "PASSPHRASE_MISSING", FixInput, "No passphrase was given.";
        PassphraseWrong = "PASSPHRASE_WRONG", FixInput, "The passphrase does not open this phone.";
        PhoneDamaged = "PHONE_DAMAGED", GiveUp, "A file of the phone's directory is damaged.";
        PhoneExists = "PHONE_EXISTS", FixInput, "The directory has a phone already.";
        PhoneInUse = "PHONE_IN_USE", Retry, "Another process uses the phone's directory.";
        PhoneIo = "PHONE_IO", Retry, "A file of the phone's directory cannot be read or written.";
        PhoneMissing = "PHONE_MISSING", FixInput, "The directory has no phone.";
        PhoneNewer = "PHONE_NEWER", GiveUp, "The phone was written by a newer version of this program.";
        PhoneStopped = "PHONE_STOPPED", Retry, "The phone was stopped in this program, and may have been opened by another.";
        ProofInvalid = "PROOF_INVALID", GiveUp, "The host says that it is paid, but its proof is wrong.";
        Stopped = "STOPPED", Retry, "A task of this process ended early.";
        Unnamed = "UNNAMED", GiveUp, "The host refused without a code.";
    }
    "The mailbox" {
        BadSignature = "BAD_SIGNATURE", GiveUp, "The signature is not by the stream's key for this connection.";
        Deleted = "DELETED", Retry, "The stream was deleted with its key.";
        Full = "FULL", Retry, "A limit of the mailbox, or of the client's network, is reached.";
        Overflow = "OVERFLOW", Retry, "Too much waits for the other side.";
        TakenOver = "TAKEN_OVER", GiveUp, "A newer connection with the same key reads there.";
        TooFast = "TOO_FAST", Retry, "Much more was sent than the stream's key may.";
    }
    "Programs and their files" {
        BlockPruned = "BLOCK_PRUNED", GiveUp, "The chain source has deleted a block that is needed.";
        BlockUnavailable = "BLOCK_UNAVAILABLE", Retry, "The chain source does not give a block now.";
        CannotListen = "CANNOT_LISTEN", FixInput, "An address cannot be listened on.";
        Config = "CONFIG", FixInput, "A setting is unknown, missing or out of range.";
        DatabaseFailed = "DATABASE_FAILED", GiveUp, "The database failed, and needs a restart.";
        DatabaseCorrupt = "DATABASE_CORRUPT", GiveUp, "The database is damaged.";
        DatabaseFenced = "DATABASE_FENCED", GiveUp, "Another process has taken over.";
        DatabaseForeign = "DATABASE_FOREIGN", FixInput, "The file is no database of Longhand.";
        DatabaseLocked = "DATABASE_LOCKED", Retry, "Another process uses the database.";
        DatabaseNewer = "DATABASE_NEWER", GiveUp, "The database was written by a newer version.";
        DatabaseUnavailable = "DATABASE_UNAVAILABLE", Retry, "The database does not answer now.";
        Devnet = "DEVNET", GiveUp, "The development chain failed.";
        DevnetData = "DATA", FixInput, "The development chain's file cannot be used.";
        DevnetRefused = "DEVNET_REFUSED", FixInput, "The development chain refuses the request.";
        DevnetUnreachable = "DEVNET_UNREACHABLE", Retry, "No development chain answers at this address.";
        Environment = "ENVIRONMENT", FixInput, "This machine lacks something that the program needs.";
        DiskFull = "DISK_FULL", Retry, "The disk is full.";
        File = "FILE", FixInput, "A file of the host's directory cannot be used.";
        HubSeed = "HUB_SEED", GiveUp, "The hub's seed is missing, or is another.";
        NoTor = "NO_TOR", FixInput, "This program was built without Tor.";
        Tls = "TLS", FixInput, "TLS cannot be set up.";
        Tor = "TOR", Retry, "Tor cannot be started.";
        TorByHand = "TOR_BY_HAND", FixInput, "`longhand tor` was started by hand.";
        TorHostLost = "TOR_HOST_LOST", Retry, "The Tor process has lost its host.";
        TorProtocol = "TOR_PROTOCOL", GiveUp, "The Tor process was sent what it does not understand.";
    }
}

impl Code {
    /// Whether the command has ended with this: the same command again is a new one. After any other code the first one may still be
    /// carried out.
    pub const fn is_final(self) -> bool {
        matches!(self.action(), Action::FixInput) || self.is_marked_final()
    }

    /// The line that programs print on standard error: `error[CODE]: what failed, why; what to do`.
    pub fn line(self, message: impl fmt::Display) -> String {
        format!("error[{self}]: {message}")
    }

    /// The code of this name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

/// The name is none of this version's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Code, UnknownCode> {
        Code::from_name(name).ok_or(UnknownCode)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Code> for String {
    fn from(code: Code) -> String {
        code.as_str().to_owned()
    }
}

impl PartialEq<Code> for str {
    fn eq(&self, code: &Code) -> bool {
        self == code.as_str()
    }
}

impl PartialEq<Code> for &str {
    fn eq(&self, code: &Code) -> bool {
        *self == code.as_str()
    }
}

impl PartialEq<Code> for String {
    fn eq(&self, code: &Code) -> bool {
        self == code.as_str()
    }
}

impl Error {
    /// An error with this code, and one line for a person: what failed, why, what to do.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error {
            code: code.into(),
            message: message.into(),
            action: code.action().into(),
            is_final: code.is_final(),
        }
    }

    /// Whether it has one of these codes.
    pub fn is_one_of(&self, codes: &[Code]) -> bool {
        codes.iter().any(|code| self.code == *code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_upper_case_and_of_one_code_each() {
        let names: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        let is_upper = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(names.iter().all(|name| name.chars().all(is_upper)));
    }

    #[test]
    fn a_name_is_read_as_its_code() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert_eq!("no_route".parse::<Code>(), Err(UnknownCode));
    }

    #[test]
    fn an_error_has_the_action_and_the_finality_of_its_code() {
        let error = Error::new(Code::SignerRefused, "no");
        assert_eq!(error.code, Code::SignerRefused);
        assert_eq!(error.action(), Action::Retry);
        assert!(error.is_final);
    }

    #[test]
    fn what_has_to_be_changed_by_the_owner_was_not_done() {
        let by_owner = |code: &&Code| code.action() == Action::FixInput;
        assert!(Code::ALL.iter().filter(by_owner).all(|it| it.is_final()));
    }
}
