//! Checks of the owner's input, before anything is recorded or sent.
//!
//! All are functions of their arguments, the time included. The host checks the rest, such as whether the balance suffices.

use std::fmt;
use std::str::FromStr;

use bitcoin::address::NetworkUnchecked;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount, Network};
use lightning_invoice::{Bolt11Invoice, Bolt11SemanticError, Currency, ParseOrSemanticError};
use longhand_proto::Code;
pub use longhand_proto::default_max_fee_msat;
use longhand_proto::{
    MAX_APP_NAME, MAX_FEERATE_SAT_PER_KW, MAX_WAKE_URL_BYTES, MAX_WAKE_URLS, MIN_CHANNEL_SAT,
    MIN_FEERATE_SAT_PER_KW, is_app_name, utc,
};
use serde::{Deserialize, Serialize};

use crate::command::CloseHow;
use crate::uri::PaymentText;

/// The default expiry of an invoice, in seconds (BOLT 11).
pub const DEFAULT_EXPIRY_S: u32 = 3_600;

/// The longest description that fits a BOLT 11 field, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 639;

/// The largest amount, that of all bitcoin (`Amount::MAX_MONEY`), in msat.
const MAX_MONEY_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;

/// A payment that passed the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedPayment {
    /// The invoice as it is sent to the host.
    pub bolt11: String,
    /// Its payment hash.
    pub payment_hash: [u8; 32],
    /// The amount, without fees.
    pub amount_msat: u64,
    /// True when the invoice leaves the amount to the payer.
    pub amount_is_open: bool,
    /// The most that routing may cost.
    pub max_fee_msat: u64,
    /// The expiry of the invoice, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// Reads a BOLT 11 invoice, alone or in a URI ([`PaymentText`]), and checks that it can be paid: its network, its expiry at `now_unix_s`, that it is not the payer's own, and
/// an amount from either the invoice or the owner.
pub fn check_payment(
    bolt11: &str,
    amount_msat: Option<u64>,
    max_fee_msat: Option<u64>,
    network: Network,
    own_node_id: &PublicKey,
    now_unix_s: u64,
) -> Result<CheckedPayment, InputError> {
    let text = PaymentText::of_invoice(bolt11)?;
    let bolt11 = text.bolt11.ok_or(InputError::UriWithoutInvoice)?;
    let invoice: Bolt11Invoice = bolt11.parse().map_err(malformed_invoice)?;
    if invoice.currency() != Currency::from(network) {
        return Err(InputError::InvoiceNetwork {
            found: invoice.network(),
            expected: network,
        });
    }
    if invoice.get_payee_pub_key() == *own_node_id {
        return Err(InputError::OwnInvoice);
    }
    let expires_unix_s = invoice
        .duration_since_epoch()
        .checked_add(invoice.expiry_time())
        .map_or(u64::MAX, |expiry| expiry.as_secs());
    if expires_unix_s <= now_unix_s {
        return Err(InputError::InvoiceExpired {
            expires_unix_s,
            now_unix_s,
        });
    }
    check_uri(text.amount_sat, &invoice)?;
    let of_uri = text.amount_sat.and_then(|sat| sat.checked_mul(1_000));
    let amount_msat = match (of_uri, amount_msat) {
        (Some(stated), Some(given)) if stated != given => {
            return Err(InputError::AmountDiffers { stated, given });
        }
        (of_uri, given) => given.or(of_uri),
    };
    let (amount_msat, amount_is_open) = match (invoice.amount_milli_satoshis(), amount_msat) {
        (Some(0), _) | (_, Some(0)) => return Err(InputError::AmountZero),
        (Some(stated), Some(given)) if stated != given => {
            return Err(InputError::AmountDiffers { stated, given });
        }
        (Some(stated), _) => (stated, false),
        (None, Some(given)) => (given, true),
        (None, None) => return Err(InputError::AmountMissing),
    };
    if amount_msat > MAX_MONEY_MSAT {
        return Err(InputError::AmountTooLarge);
    }
    Ok(CheckedPayment {
        bolt11,
        payment_hash: invoice.payment_hash().0,
        amount_msat,
        amount_is_open,
        max_fee_msat: max_fee_msat.unwrap_or_else(|| default_max_fee_msat(amount_msat)),
        expires_unix_s,
    })
}

/// A URI may have an amount for its address and another one in its invoice (BIP 21).
fn check_uri(amount_sat: Option<u64>, invoice: &Bolt11Invoice) -> Result<(), InputError> {
    match (amount_sat, invoice.amount_milli_satoshis()) {
        (Some(uri_sat), Some(invoice_msat)) if uri_sat.checked_mul(1_000) != Some(invoice_msat) => {
            Err(InputError::UriAmountsDiffer {
                uri_sat,
                invoice_msat,
            })
        }
        _ => Ok(()),
    }
}

pub(crate) fn malformed_invoice(error: ParseOrSemanticError) -> InputError {
    let reason = match &error {
        ParseOrSemanticError::SemanticError(Bolt11SemanticError::InvalidSignature) => {
            "its signature is wrong".to_owned()
        }
        ParseOrSemanticError::SemanticError(Bolt11SemanticError::InvalidFeatures) => {
            "it needs features that are not known here".to_owned()
        }
        other => other.to_string().replace('\n', " "),
    };
    InputError::InvoiceMalformed(reason)
}

/// The amount of an invoice; any amount without one.
pub fn check_invoice_request(
    amount_msat: Option<u64>,
    description: &str,
    expiry_s: u32,
) -> Result<(), InputError> {
    match amount_msat {
        Some(0) => return Err(InputError::AmountZero),
        Some(amount) if amount > MAX_MONEY_MSAT => return Err(InputError::AmountTooLarge),
        _ => {}
    }
    if description.len() > MAX_DESCRIPTION_BYTES {
        return Err(InputError::DescriptionTooLong {
            bytes: description.len(),
        });
    }
    if expiry_s == 0 {
        return Err(InputError::ExpiryZero);
    }
    Ok(())
}

/// The amount to send on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnchainAmount {
    /// In satoshis.
    Sat(u64),
    /// The whole balance, less the fee.
    All,
}

impl FromStr for OnchainAmount {
    type Err = String;
    fn from_str(text: &str) -> Result<OnchainAmount, String> {
        match text {
            "all" => Ok(OnchainAmount::All),
            sat => sat
                .parse()
                .map(OnchainAmount::Sat)
                .map_err(|_| "a number of satoshis, or `all`".into()),
        }
    }
}

/// The amount to send to an address: the owner's, or that of its URI.
///
/// # Errors
/// [`InputError::OnchainAmountMissing`], and those of [`PaymentText::of_address`]. [`check_onchain`] refuses two that differ.
pub fn onchain_amount(
    address: &str,
    given: Option<OnchainAmount>,
) -> Result<OnchainAmount, InputError> {
    let stated = PaymentText::of_address(address)?.amount_sat;
    let amount = given.or(stated.map(OnchainAmount::Sat));
    amount.ok_or(InputError::OnchainAmountMissing)
}

/// Reads an address of `network`, alone or in a URI ([`PaymentText`]), and checks that an output to it would not be dust.
pub fn check_onchain(
    address: &str,
    amount: OnchainAmount,
    network: Network,
) -> Result<Address, InputError> {
    let text = PaymentText::of_address(address)?;
    match (text.amount_sat, amount) {
        (Some(stated_sat), OnchainAmount::Sat(given_sat)) if stated_sat != given_sat => {
            return Err(InputError::UriAmountDiffers {
                stated_sat,
                given_sat,
            });
        }
        (Some(stated_sat), OnchainAmount::All) => {
            return Err(InputError::UriAmountNotAll { stated_sat });
        }
        _ => {}
    }
    // An invoice that cannot be read says nothing about the amount.
    if let Some(invoice) = text.bolt11.and_then(|it| it.parse().ok()) {
        check_uri(text.amount_sat, &invoice)?;
    }
    let address = text
        .address
        .ok_or(InputError::UriWithoutAddress)?
        .parse::<Address<NetworkUnchecked>>()
        .map_err(|_| InputError::AddressMalformed)?
        .require_network(network)
        .map_err(|_| InputError::AddressNetwork { expected: network })?;
    if let OnchainAmount::Sat(sat) = amount {
        let least = address.script_pubkey().minimal_non_dust().to_sat();
        check_sat(sat)?;
        if sat < least {
            return Err(InputError::AmountDust { least_sat: least });
        }
    }
    Ok(address)
}

/// Checks how a channel is to be closed. The address is returned without its URI.
pub fn check_close(how: CloseHow, network: Network) -> Result<CloseHow, InputError> {
    if how.force && (how.address.is_some() || how.feerate_sat_per_kw.is_some()) {
        return Err(InputError::ForcedClose);
    }
    check_feerate(how.feerate_sat_per_kw)?;
    let address = match &how.address {
        Some(text) => Some(check_onchain(text, OnchainAmount::All, network)?.to_string()),
        None => None,
    };
    Ok(CloseHow { address, ..how })
}

/// Checks a channel's capacity.
pub fn check_channel(amount_sat: u64) -> Result<(), InputError> {
    check_sat(amount_sat)?;
    if amount_sat < MIN_CHANNEL_SAT {
        return Err(InputError::ChannelTooSmall);
    }
    Ok(())
}

/// Checks a fee rate in satoshis per 1,000 weight units; without one the host's estimate is used.
pub fn check_feerate(sat_per_kw: Option<u32>) -> Result<(), InputError> {
    match sat_per_kw {
        None | Some(MIN_FEERATE_SAT_PER_KW..=MAX_FEERATE_SAT_PER_KW) => Ok(()),
        Some(_) => Err(InputError::FeerateOutOfRange),
    }
}

fn check_sat(sat: u64) -> Result<(), InputError> {
    match sat {
        0 => Err(InputError::AmountZero),
        _ if sat > Amount::MAX_MONEY.to_sat() => Err(InputError::AmountTooLarge),
        _ => Ok(()),
    }
}

/// A peer and its address: `NODE_ID@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    /// The peer's node id.
    pub node_id: PublicKey,
    /// `host:port`.
    pub address: String,
}

impl FromStr for PeerAddress {
    type Err = InputError;
    fn from_str(text: &str) -> Result<PeerAddress, InputError> {
        let (node_id, address) = text
            .trim()
            .split_once('@')
            .ok_or(InputError::PeerMalformed)?;
        let node_id = node_id.parse().map_err(|_| InputError::PeerMalformed)?;
        let (host, port) = address.rsplit_once(':').ok_or(InputError::PeerMalformed)?;
        match port.parse::<u16>() {
            Ok(1..)
                if !host.is_empty()
                    && !host.contains(|c: char| c.is_whitespace() || c.is_control()) =>
            {
                Ok(PeerAddress {
                    node_id,
                    address: address.to_owned(),
                })
            }
            _ => Err(InputError::PeerMalformed),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node_id, self.address)
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = InputError;
    fn try_from(text: String) -> Result<PeerAddress, InputError> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(peer: PeerAddress) -> String {
        peer.to_string()
    }
}

/// Reads 32 bytes in hex: a payment hash.
pub fn check_payment_hash(text: &str) -> Result<[u8; 32], InputError> {
    bitcoin::hex::FromHex::from_hex(text.trim()).map_err(|_| InputError::PaymentHashMalformed)
}

/// Reads the place of a page of payments, which the page before gave: 40 bytes in hex.
pub fn check_cursor(text: &str) -> Result<Vec<u8>, InputError> {
    let bytes: Result<[u8; 40], _> = bitcoin::hex::FromHex::from_hex(text.trim());
    let bytes = bytes.map_err(|_| InputError::CursorMalformed)?;
    Ok(bytes.to_vec())
}

/// Reads a transaction's id.
pub fn check_txid(text: &str) -> Result<bitcoin::Txid, InputError> {
    text.trim().parse().map_err(|_| InputError::TxidMalformed)
}

/// Checks the wake URLs that are given to the host, which reads all of them.
pub fn check_wake_urls(urls: &[String]) -> Result<(), InputError> {
    if urls.len() > MAX_WAKE_URLS {
        return Err(InputError::WakeUrlsTooMany);
    }
    let is_web = |url: &str| {
        let (scheme, host) = url.split_once("://").unwrap_or_default();
        let is_http = ["http", "https"]
            .iter()
            .any(|it| scheme.eq_ignore_ascii_case(it));
        is_http && !host.is_empty() && !url.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    for url in urls {
        if url.len() > MAX_WAKE_URL_BYTES {
            return Err(InputError::WakeUrlTooLong);
        }
        if !is_web(url) {
            return Err(InputError::WakeUrlMalformed);
        }
    }
    Ok(())
}

/// Reads 32 bytes in hex: a channel id.
pub fn check_channel_id(text: &str) -> Result<[u8; 32], InputError> {
    bitcoin::hex::FromHex::from_hex(text.trim()).map_err(|_| InputError::ChannelIdMalformed)
}

/// Checks the name of an app.
pub(crate) fn check_app_name(name: &str) -> Result<(), InputError> {
    match is_app_name(name) {
        true => Ok(()),
        false => Err(InputError::AppNameMalformed),
    }
}

/// Input of the owner that cannot be used. Nothing was sent and nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The text is no BOLT 11 invoice.
    #[error("this is not an invoice that can be read ({0}): copy it again, all of it")]
    InvoiceMalformed(String),
    /// The invoice is of another network.
    #[error("the invoice is for {found}, this phone is on {expected}: ask for another one")]
    InvoiceNetwork {
        /// The invoice's.
        found: Network,
        /// The phone's.
        expected: Network,
    },
    /// The invoice has expired.
    #[error(
        "the invoice expired at {}, and this phone's clock shows {}: ask for a new one, or set the clock if it is wrong",
        utc(*.expires_unix_s),
        utc(*.now_unix_s)
    )]
    InvoiceExpired {
        /// The expiry, in seconds since 1970.
        expires_unix_s: u64,
        /// By this phone's clock.
        now_unix_s: u64,
    },
    /// A birthday is no date.
    #[error("this is not a date: write it as YYYY-MM-DD, such as 2024-05-31")]
    DateMalformed,
    /// A birthday from before Bitcoin, or in the future.
    #[error(
        "the date is before Bitcoin's first block or in the future: give the day of the wallet's first payment, or an earlier one"
    )]
    DateOutOfRange,
    /// The invoice is the owner's own.
    #[error("the invoice is this phone's own: there is nothing to pay")]
    OwnInvoice,
    /// The payment has succeeded before.
    #[error("the invoice is paid already: ask for a new one to pay again")]
    AlreadyPaid,
    /// Neither the invoice nor the owner gives an amount.
    #[error("the invoice leaves the amount open: say how much with --amount-msat")]
    AmountMissing,
    /// The amount is zero or less.
    #[error("the amount is zero: give a larger one")]
    AmountZero,
    /// The owner's amount is not that of the invoice.
    #[error("the invoice asks for {stated} msat, not {given}: leave the amount out")]
    AmountDiffers {
        /// By the invoice, in msat.
        stated: u64,
        /// By the owner, in msat.
        given: u64,
    },
    /// The amount is larger than all bitcoin.
    #[error("the amount is larger than all bitcoin: look at the unit")]
    AmountTooLarge,
    /// The output would be dust, which no node relays.
    #[error("the amount is dust: send at least {least_sat} sat to this address")]
    AmountDust {
        /// For this address.
        least_sat: u64,
    },
    /// The capacity is below [`MIN_CHANNEL_SAT`]: the node would refuse it.
    #[error("the channel is too small: give at least {MIN_CHANNEL_SAT} sat")]
    ChannelTooSmall,
    /// The fee rate is below [`MIN_FEERATE_SAT_PER_KW`] or above [`MAX_FEERATE_SAT_PER_KW`].
    #[error(
        "the fee rate must be {MIN_FEERATE_SAT_PER_KW} to {MAX_FEERATE_SAT_PER_KW} satoshis per 1,000 weight units \
         (250 = 1 sat/vB): look at the unit"
    )]
    FeerateOutOfRange,
    /// The description does not fit into an invoice.
    #[error(
        "the description has {bytes} bytes, an invoice holds {MAX_DESCRIPTION_BYTES}: shorten it"
    )]
    DescriptionTooLong {
        /// As given.
        bytes: usize,
    },
    /// The invoice would expire at once.
    #[error("an invoice that expires at once cannot be paid: give a longer --expiry")]
    ExpiryZero,
    /// The text is no bitcoin address.
    #[error("this is not a bitcoin address: copy it again, all of it")]
    AddressMalformed,
    /// The address is of another network.
    #[error("the address is not one of {expected}: ask for one of that network")]
    AddressNetwork {
        /// The phone's.
        expected: Network,
    },
    /// The text is no URI of a payment.
    #[error("this cannot be paid: {0}")]
    UriMalformed(&'static str),
    /// A BIP 21 URI requires something.
    #[error("the URI requires what this version does not know: ask for another")]
    UriUnknown,
    /// A BIP 21 URI without an invoice.
    #[error("the URI has no Lightning invoice: pay its address with `send-onchain`")]
    UriWithoutInvoice,
    /// A URI without an address.
    #[error("the URI has no on-chain address: pay its invoice with `pay`")]
    UriWithoutAddress,
    /// A URI whose amount is not that of its invoice.
    #[error(
        "the URI asks for {uri_sat} sat, and its invoice for {invoice_msat} msat: ask the payee for another one"
    )]
    UriAmountsDiffer {
        /// For its address.
        uri_sat: u64,
        /// In its invoice.
        invoice_msat: u64,
    },
    /// The owner's amount is not that of the URI.
    #[error("the URI asks for {stated_sat} sat, not {given_sat}: give its amount")]
    UriAmountDiffers {
        /// By the URI.
        stated_sat: u64,
        /// By the owner.
        given_sat: u64,
    },
    /// All there is, to a URI with an amount.
    #[error("the URI asks for {stated_sat} sat, not for all there is: leave the amount out")]
    UriAmountNotAll {
        /// By the URI.
        stated_sat: u64,
    },
    /// Neither a URI nor the owner gives an amount.
    #[error("the address says nothing of an amount: give one in satoshis, or `all`")]
    OnchainAmountMissing,
    /// The text is no payment hash.
    #[error("this is not a payment hash: take the 64 digits that `payments` shows")]
    PaymentHashMalformed,
    /// The text is no place of a page.
    #[error("this is not the place of a page: take the one that the page before shows")]
    CursorMalformed,
    /// The host knows no such payment.
    #[error("the host knows no payment with this hash: look at `payments`")]
    PaymentUnknown,
    /// The text is no peer.
    #[error("this is not a peer: write it as NODE_ID@HOST:PORT")]
    PeerMalformed,
    /// No peer was named, and there is no default.
    #[error("the host has no hub: name a peer as NODE_ID@HOST:PORT")]
    NoHub,
    /// A forced close with an address or a fee rate.
    #[error(
        "a forced close pays to the on-chain wallet, at the fee rate that the peers agreed on: leave --address and \
         --feerate out"
    )]
    ForcedClose,
    /// The text is no transaction id.
    #[error("this is not a transaction's id: take the 64 digits that `sends` shows")]
    TxidMalformed,
    /// The text is no web address.
    #[error("this is not a wake URL: give http:// or https:// and a host")]
    WakeUrlMalformed,
    /// A wake URL is longer than [`MAX_WAKE_URL_BYTES`].
    #[error("a wake URL is longer than {MAX_WAKE_URL_BYTES} bytes: give a shorter one")]
    WakeUrlTooLong,
    /// There are more wake URLs than [`MAX_WAKE_URLS`].
    #[error("there are more than {MAX_WAKE_URLS} wake URLs: give fewer")]
    WakeUrlsTooMany,
    /// The name of an app is empty, too long, or cannot be shown.
    #[error("the name of an app has 1 to {MAX_APP_NAME} characters, without spaces around it")]
    AppNameMalformed,
    /// The text is no channel id.
    #[error("this is not a channel id: take the 64 digits that `channels` shows")]
    ChannelIdMalformed,
}

impl InputError {
    /// Stable, for programs.
    pub fn code(&self) -> Code {
        match self {
            InputError::InvoiceMalformed(_) => Code::InvoiceMalformed,
            InputError::InvoiceNetwork { .. } => Code::WrongNetwork,
            InputError::InvoiceExpired { .. } => Code::InvoiceExpired,
            InputError::DateMalformed => Code::DateMalformed,
            InputError::DateOutOfRange => Code::DateOutOfRange,
            InputError::OwnInvoice => Code::InvoiceOwn,
            InputError::AlreadyPaid => Code::AlreadyPaid,
            InputError::AmountMissing => Code::AmountMissing,
            InputError::AmountZero => Code::AmountZero,
            InputError::AmountDiffers { .. } => Code::AmountDiffers,
            InputError::AmountTooLarge => Code::AmountTooLarge,
            InputError::AmountDust { .. } => Code::AmountDust,
            InputError::ChannelTooSmall => Code::ChannelTooSmall,
            InputError::FeerateOutOfRange => Code::FeerateOutOfRange,
            InputError::DescriptionTooLong { .. } => Code::DescriptionTooLong,
            InputError::ExpiryZero => Code::ExpiryZero,
            InputError::AddressMalformed => Code::AddressMalformed,
            InputError::AddressNetwork { .. } => Code::WrongNetwork,
            InputError::UriMalformed(_) => Code::UriMalformed,
            InputError::UriUnknown => Code::UriUnknown,
            InputError::UriWithoutInvoice => Code::UriWithoutInvoice,
            InputError::UriWithoutAddress => Code::UriWithoutAddress,
            InputError::UriAmountDiffers { .. } => Code::AmountDiffers,
            InputError::UriAmountNotAll { .. } | InputError::UriAmountsDiffer { .. } => {
                Code::AmountDiffers
            }
            InputError::OnchainAmountMissing => Code::AmountMissing,
            InputError::PaymentHashMalformed => Code::PaymentHashMalformed,
            InputError::CursorMalformed => Code::CursorMalformed,
            InputError::PaymentUnknown => Code::PaymentUnknown,
            InputError::PeerMalformed => Code::PeerMalformed,
            InputError::NoHub => Code::NoHub,
            InputError::ForcedClose => Code::ForcedClose,
            InputError::TxidMalformed => Code::TxidMalformed,
            InputError::WakeUrlMalformed => Code::BadWakeUrl,
            InputError::WakeUrlTooLong => Code::WakeUrlTooLong,
            InputError::WakeUrlsTooMany => Code::TooManyWakeUrls,
            InputError::AppNameMalformed => Code::AppNameMalformed,
            InputError::ChannelIdMalformed => Code::ChannelIdMalformed,
        }
    }
}
