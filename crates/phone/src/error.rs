//! Errors of a phone, with a stable code for programs and one line for people.

use longhand_base::text::plain;
use longhand_link::{CloseCode, CloseReason, LinkError, PairingCodeError};
use longhand_proto::Code;
use longhand_proto::{command as proto, utc};
use longhand_signer::LimitError;
use longhand_signer::rules::{Refused, Rule};
use longhand_signer::{SeedError, SignerError};
use serde::{Deserialize, Serialize};

use crate::approval::Denied;
use crate::input::InputError;
use crate::vault::VaultError;

/// The reason for which a phone could not carry out a command of its owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// The owner's input cannot be used. Nothing was sent and nothing changed.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The phone's directory cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The words are no BIP 39 mnemonic.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The signer cannot be restored from the ledger.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A rule of the phone's signer forbids it, such as an invoice that is not the one requested.
    #[error(
        "the phone refuses ({0}): nothing was signed; if it happens again, ask who runs the host"
    )]
    Refused(#[from] Refused),
    /// The approver has denied it. Nothing was recorded and nothing sent.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Apps ask for too many invoices and addresses.
    #[error(
        "apps have asked for too many invoices and addresses in the last hour: try again later"
    )]
    AppsBusy,
    /// A limit cannot be set so. Nothing was changed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The text is no pairing code.
    #[error(transparent)]
    PairingCode(#[from] PairingCodeError),
    /// The pairing code has expired; the host was not asked.
    #[error(
        "the pairing code expired at {}, and this phone's clock shows {}: get a new code from the host, or set the clock if it is wrong",
        utc(*.expires_unix_s),
        utc(*.now_unix_s)
    )]
    PairingExpired {
        /// The expiry, in seconds since 1970.
        expires_unix_s: u64,
        /// By this phone's clock.
        now_unix_s: u64,
    },
    /// The pairing code has expired by the clock of the host, which the text names.
    #[error("the host refuses: {reason}; this phone's clock shows {}", utc(*.now_unix_s))]
    PairingExpiredAtHost {
        /// The host's text.
        reason: String,
        /// By this phone's clock, in seconds since 1970.
        now_unix_s: u64,
    },
    /// The phone belongs to another host, where it may have channels.
    #[error("this phone is paired with another host: use another --dir for a new phone")]
    PairedElsewhere,
    /// The phone is not paired with a host yet.
    #[error("this phone is not paired with a host: `longhand phone pair CODE` first")]
    NotPaired,
    /// The link could not be made, or failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The link was ended for good.
    #[error("{}", ended(.0))]
    Ended(CloseReason),
    /// The host could not be reached in time. The command may have been carried out: repeat it, it is not done twice.
    #[error("the host cannot be reached ({last}): try again; nothing is done twice")]
    HostAway {
        /// The error of the last attempt.
        last: String,
    },
    /// The host answered with an error.
    #[error("{}", with_advice(.0))]
    Host(proto::Error),
    /// The host's answer does not fit the command.
    #[error("the host's answer is not understood ({0}): use the same version on both sides")]
    Answer(&'static str),
    /// The host presented something as the phone's own that is not.
    #[error("the host gave {0} that is not this phone's: do not use it, and ask who runs the host")]
    Foreign(&'static str),
    /// The payment failed: the payee has not received it, and will not.
    #[error(
        "the payment failed ({0}): nothing was paid; try again, or ask for another route or amount"
    )]
    PaymentFailed(String),
    /// The host reports that the payment succeeded, without a valid proof.
    #[error(
        "the host says this is paid, but its proof does not fit: ask who runs the host, and the payee"
    )]
    ProofInvalid,
    /// The control socket fails.
    #[error(
        "the running phone cannot be reached by its control socket ({0}): restart `longhand phone run`"
    )]
    Control(String),
    /// The error that the process which runs this phone returned, or with which the link ended some time ago.
    #[error("{}", .0.message)]
    Reported(ErrorReport),
    /// A task of this process ended early.
    #[error("the phone stopped ({0}): start it again")]
    Stopped(String),
}

/// An error as the control socket carries it and `--json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Stable, upper case.
    pub code: String,
    /// One line for a person: what failed, why, what to do.
    pub message: String,
}

impl PhoneError {
    /// Stable, upper case, for programs.
    pub fn code(&self) -> &str {
        let code = match self {
            PhoneError::Host(error) => return &error.code,
            PhoneError::Reported(report) => return &report.code,
            PhoneError::Ended(reason) => return reason.code.as_str(),
            PhoneError::Link(error) => return link_code(error),
            PhoneError::Input(error) => error.code(),
            PhoneError::Vault(error) => vault_code(error),
            PhoneError::Seed(_) => Code::SeedInvalid,
            PhoneError::Signer(_) => Code::LedgerUnusable,
            PhoneError::Refused(refused) if refused.rule == Rule::SpendLimit => Code::LimitReached,
            PhoneError::Refused(_) => Code::SignerRefused,
            PhoneError::Denied(_) => Code::NotConfirmed,
            PhoneError::AppsBusy => Code::Busy,
            PhoneError::Limit(_) => Code::LimitMalformed,
            PhoneError::PairingCode(PairingCodeError::Version { .. }) => Code::PairingVersion,
            PhoneError::PairingCode(_) => Code::PairingMalformed,
            PhoneError::PairingExpired { .. } | PhoneError::PairingExpiredAtHost { .. } => {
                Code::PairingExpired
            }
            PhoneError::PairedElsewhere => Code::PairedElsewhere,
            PhoneError::NotPaired => Code::NotPaired,
            PhoneError::HostAway { .. } => Code::HostAway,
            PhoneError::Answer(_) => Code::AnswerMalformed,
            PhoneError::Foreign(_) => Code::NotOurs,
            PhoneError::PaymentFailed(_) => Code::PaymentFailed,
            PhoneError::ProofInvalid => Code::ProofInvalid,
            PhoneError::Control(_) => Code::ControlFailed,
            PhoneError::Stopped(_) => Code::Stopped,
        };
        code.as_str()
    }

    /// Code and line, without the source errors. Some of it may be the host's text.
    pub fn report(&self) -> ErrorReport {
        let message = self.to_string().replace(['\n', '\r'], " ");
        let code = match plain(self.code()) {
            code if code.is_empty() => Code::Unnamed.into(),
            code => code,
        };
        ErrorReport {
            code,
            message: plain(&message),
        }
    }
}

impl From<PhoneError> for ErrorReport {
    fn from(error: PhoneError) -> ErrorReport {
        error.report()
    }
}

fn vault_code(error: &VaultError) -> Code {
    match error {
        VaultError::Missing(_) => Code::PhoneMissing,
        VaultError::Exists(_) => Code::PhoneExists,
        VaultError::InUse(_) => Code::PhoneInUse,
        VaultError::WrongPassphrase => Code::PassphraseWrong,
        VaultError::EmptyPassphrase => Code::PassphraseEmpty,
        VaultError::DamagedSeed(_) | VaultError::DamagedHost => Code::PhoneDamaged,
        VaultError::NoLedger | VaultError::NoHead => Code::LedgerMissing,
        VaultError::Damaged { .. } => Code::LedgerDamaged,
        VaultError::Older { .. } => Code::LedgerOld,
        VaultError::NewerFormat { .. } => Code::PhoneNewer,
        VaultError::Full => Code::DiskFull,
        VaultError::NeedsReopening | VaultError::Io(_) => Code::PhoneIo,
    }
}

fn link_code(error: &LinkError) -> &str {
    let code = match error {
        LinkError::Down(reason) | LinkError::Closed(reason) => return reason.code.as_str(),
        LinkError::Restarted => Code::HostRestarted,
        LinkError::Refused { code, .. } => return code,
        LinkError::TooLarge { .. } => Code::TooLarge,
        LinkError::Unreachable { .. } => Code::HostUnreachable,
        LinkError::UnknownCarrier(_) => Code::CarrierUnknown,
        LinkError::Carrier(_) | LinkError::HandshakeTimeout => Code::HandshakeBroken,
        LinkError::Handshake => Code::HandshakeFailed,
        LinkError::WrongHost => Code::WrongHost,
        LinkError::Version { .. } => Code::Version,
        LinkError::Protocol(_) => Code::Protocol,
        LinkError::Tls(_) => Code::Tls,
        _ => Code::LinkFailed,
    };
    code.as_str()
}

fn ended(reason: &CloseReason) -> String {
    match reason.code {
        CloseCode::Replaced => {
            "another process attached with this phone's keys, and the newest wins: stop one of the two".into()
        }
        CloseCode::UnknownOwner => {
            "the host does not know this phone: pair again with a new code".into()
        }
        _ => format!("the host ended the link: {reason}"),
    }
}

/// Adds what to do to a line of the host that does not have it after a colon, by the error's action.
fn with_advice(error: &proto::Error) -> String {
    use proto::error::Action;
    if error.message.trim().is_empty() {
        return "the host refuses, and does not say why: ask who runs it".into();
    }
    if error.message.contains(": ") {
        return error.message.clone();
    }
    let advice = match error.action() {
        Action::Unspecified => return error.message.clone(),
        Action::WaitForPhone => "wait until the phone is attached",
        Action::FixInput => "change what was asked",
        Action::Retry => "try again",
        Action::GiveUp => "it cannot be done",
    };
    format!("{}; {advice}", error.message)
}
