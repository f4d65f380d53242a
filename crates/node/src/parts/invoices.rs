//! BOLT 11 invoices of this node. Stateless: LDK derives the payment secret, and the preimage is the phone's.

use std::cmp::Reverse;
use std::time::Duration;

use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::Bolt11InvoiceParameters;
use lightning_invoice::{
    Bolt11InvoiceDescription, Currency, Description, InvoiceBuilder, PaymentSecret,
    RawBolt11Invoice, RouteHint, RouteHintHop, RoutingFees,
};
use longhand_proto::Code;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{CreateInvoice, Error, UnsignedInvoice};

use crate::machine::input::InvoiceRequest;
use crate::machine::turn::Turn;
use crate::parts::closed_channels::is_closing;
use crate::parts::payments::payment_hash;

/// Blocks that a payer must leave an owner to claim (BOLT 11 `c`): a day, while LDK's default is 42 blocks. LDK fails an
/// HTLC that is not settled 39 blocks before it expires, and a phone that went away meanwhile needs time to be woken.
const MIN_FINAL_CLTV_EXPIRY_DELTA: u16 = 144;

/// 21 million bitcoin.
const MAX_MONEY_MSAT: u64 = 2_100_000_000_000_000_000;
/// Hints in one invoice: each makes it longer, and payers try few.
const MOST_HINTS: usize = 4;

/// An invoice for the phone to sign, with hints to the channels that `is_shown` names: those that the phone has seen in the chain.
///
/// # Errors
/// `PAYMENT_HASH_MALFORMED`, `AMOUNT_TOO_LARGE`, `DESCRIPTION_TOO_LONG` or `INVOICE_MALFORMED`; `NO_INBOUND` when the channels cannot receive it.
pub(crate) fn unsigned(
    turn: &Turn,
    request: &CreateInvoice,
    is_shown: impl Fn(&ChannelDetails) -> bool,
) -> Result<UnsignedInvoice, Error> {
    let hash = payment_hash(&request.payment_hash)?;
    let amount_msat = (request.amount_msat > 0).then_some(request.amount_msat);
    if request.amount_msat > MAX_MONEY_MSAT {
        let message = "the amount is above all bitcoin there will ever be: give less";
        return Err(Error::new(Code::AmountTooLarge, message));
    }
    // Blocks may pass while the payment waits at the hub: the secret has no expiry delta in it, so that LDK takes the payment as long as
    // there is time to claim it.
    let secret = <[u8; 32]>::try_from(&request.payment_secret[..]).map_err(|_| {
        Error::new(
            Code::InvoiceMalformed,
            "the payment secret of an invoice has 32 bytes: update the phone",
        )
    })?;
    let mut invoice = InvoiceBuilder::new(Currency::from(turn.config.network))
        .invoice_description(description(&request.description)?)
        .payment_hash(hash)
        .payment_secret(PaymentSecret(secret))
        .duration_since_epoch(turn.now.since_1970)
        .min_final_cltv_expiry_delta(MIN_FINAL_CLTV_EXPIRY_DELTA.into())
        .expiry_time(Duration::from_secs(request.expiry_s.into()))
        .payee_pub_key(turn.node_id())
        .basic_mpp();
    if let Some(amount_msat) = amount_msat {
        invoice = invoice.amount_milli_satoshis(amount_msat);
    }
    check_inbound(turn, request.amount_msat, &is_shown)?;
    for hint in hop_hints(turn, is_shown) {
        invoice = invoice.private_route(hint);
    }
    let raw = invoice.build_raw().map_err(bad_invoice)?;
    Ok(split(&raw))
}

/// An invoice signed with local keys, in the reply's `hrp`.
///
/// # Errors
/// `DESCRIPTION_TOO_LONG` or `INVOICE_MALFORMED`; `NO_INBOUND` when the channels cannot receive it.
pub(crate) fn signed_locally(turn: &Turn, request: InvoiceRequest) -> Result<Reply, Error> {
    let parameters = Bolt11InvoiceParameters {
        amount_msats: (request.amount_msat > 0).then_some(request.amount_msat),
        description: description(&request.description)?,
        invoice_expiry_delta_secs: Some(request.expiry_s),
        ..Bolt11InvoiceParameters::default()
    };
    let invoice = turn.ldk.manager.create_bolt11_invoice(parameters);
    let invoice = invoice.map_err(bad_invoice)?;
    check_inbound(turn, request.amount_msat, |_| true)?;
    Ok(Reply::UnsignedInvoice(UnsignedInvoice {
        hrp: invoice.to_string(),
        data: Vec::new(),
    }))
}

fn bad_invoice(error: impl std::fmt::Display) -> Error {
    let message = format!("the invoice cannot be made: {error}");
    Error::new(Code::InvoiceMalformed, message)
}

fn description(text: &str) -> Result<Bolt11InvoiceDescription, Error> {
    let description = Description::new(text.to_owned()).map_err(|_| {
        let message = "the description is longer than 639 bytes";
        Error::new(Code::DescriptionTooLong, message)
    })?;
    Ok(Bolt11InvoiceDescription::Direct(description))
}

/// Refuses an invoice that nobody could pay: its payer would only read that no route was found. `amount_msat` 0 is any
/// amount.
fn check_inbound(
    turn: &Turn,
    amount_msat: u64,
    is_shown: impl Fn(&ChannelDetails) -> bool,
) -> Result<(), Error> {
    let mut channels = receiving(turn);
    let ready = channels.len();
    channels.retain(|channel| channel.is_announced || is_shown(channel));
    let receivable = channels.iter().map(|it| it.inbound_capacity_msat);
    let receivable_msat = receivable.fold(0, u64::saturating_add);
    if receivable_msat >= amount_msat.max(1) {
        return Ok(());
    }
    let message = match channels.is_empty() {
        true if ready > 0 => "the phone has not seen yet that its channels are in the chain: try again in a moment".into(),
        true => "no channel can receive a payment yet: open one, or have one opened, and wait until it is ready".into(),
        false => format!(
            "the channels can receive {receivable_msat} msat, less than the invoice asks for: ask for less, pay with \
             these channels first, or have another one opened"
        ),
    };
    Err(Error::new(Code::NoInbound, message))
}

/// Channels that payments come in over, those with the most room first. Whether the peer is connected makes no difference:
/// it is when the payment comes.
fn receiving(turn: &Turn) -> Vec<ChannelDetails> {
    let mut channels = turn.channels();
    channels.retain(|channel| channel.is_channel_ready && !is_closing(channel));
    channels.sort_by_key(|channel| Reverse(channel.inbound_capacity_msat));
    channels
}

/// Routes to unannounced channels (BOLT 11 `r`), the best first.
fn hop_hints(turn: &Turn, is_shown: impl Fn(&ChannelDetails) -> bool) -> Vec<RouteHint> {
    let channels = receiving(turn).into_iter().filter(is_shown);
    // A payer would try one that has no room in vain.
    let hidden =
        channels.filter(|channel| !channel.is_announced && channel.inbound_capacity_msat > 0);
    let hints = hidden.filter_map(|channel| {
        let forwarding = channel.counterparty.forwarding_info.as_ref()?;
        Some(RouteHint(vec![RouteHintHop {
            src_node_id: channel.counterparty.node_id,
            short_channel_id: channel.get_inbound_payment_scid()?,
            fees: RoutingFees {
                base_msat: forwarding.fee_base_msat,
                proportional_millionths: forwarding.fee_proportional_millionths,
            },
            cltv_expiry_delta: forwarding.cltv_expiry_delta,
            htlc_minimum_msat: channel.inbound_htlc_minimum_msat,
            htlc_maximum_msat: channel.inbound_htlc_maximum_msat,
        }]))
    });
    hints.take(MOST_HINTS).collect()
}

fn split(raw: &RawBolt11Invoice) -> UnsignedInvoice {
    let (hrp, data) = raw.to_raw();
    UnsignedInvoice {
        hrp,
        data: data.iter().map(|group| group.to_u8()).collect(),
    }
}

#[cfg(test)]
#[path = "tests/invoices.rs"]
mod tests;
