//! An invoice, read.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::Network;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
use longhand_base::text;
use tonic::Status;

use super::{hex, int};
use crate::node::Node;
use crate::proto::lnrpc::{Feature, HopHint, PayReq, PayReqString, RouteHint};
use crate::status::bad_input;

/// The longest invoice that is read, in characters: what `lightning-invoice` takes.
const MOST_CHARS: usize = 7_089;

pub(super) async fn decode(node: Arc<dyn Node>, asked: PayReqString) -> Result<PayReq, Status> {
    let invoice = of_node(&*node, &asked.pay_req).await?;
    let (description, description_hash) = match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(text) => (text.as_inner().0.clone(), String::new()),
        Bolt11InvoiceDescriptionRef::Hash(hash) => (String::new(), hash.0.to_string()),
    };
    let amount_msat = invoice.amount_milli_satoshis().unwrap_or(0);
    let fallback = invoice
        .fallback_addresses()
        .first()
        .map(ToString::to_string);
    Ok(PayReq {
        destination: hex(&invoice.get_payee_pub_key().serialize()),
        payment_hash: hex(&invoice.payment_hash().0),
        num_satoshis: int(amount_msat / 1_000),
        num_msat: int(amount_msat),
        timestamp: int(invoice.duration_since_epoch().as_secs()),
        expiry: int(invoice.expiry_time().as_secs()),
        description: text::plain(&description),
        description_hash,
        fallback_addr: fallback.unwrap_or_default(),
        cltv_expiry: int(invoice.min_final_cltv_expiry_delta()),
        route_hints: hints(&invoice),
        payment_addr: invoice.payment_secret().0.to_vec(),
        features: features(&invoice),
    })
}

/// Reads an invoice of the node's network.
pub(super) async fn of_node(node: &dyn Node, text: &str) -> Result<Bolt11Invoice, Status> {
    if text.len() > MOST_CHARS {
        return Err(bad_input("invalid invoice: it is too long"));
    }
    let invoice: Bolt11Invoice = text
        .parse()
        .map_err(|error| bad_input(format!("invalid invoice: {error}")))?;
    let network = node.info().await?.network.parse::<Network>();
    match network {
        Ok(network) if invoice.currency() != Currency::from(network) => Err(bad_input(format!(
            "invalid invoice: it is not of the node's network, {network}"
        ))),
        _ => Ok(invoice),
    }
}

fn hints(invoice: &Bolt11Invoice) -> Vec<RouteHint> {
    let hints = invoice.route_hints().into_iter().map(|hint| RouteHint {
        hop_hints: hint
            .0
            .into_iter()
            .map(|hop| HopHint {
                node_id: hex(&hop.src_node_id.serialize()),
                chan_id: hop.short_channel_id,
                fee_base_msat: hop.fees.base_msat,
                fee_proportional_millionths: hop.fees.proportional_millionths,
                cltv_expiry_delta: hop.cltv_expiry_delta.into(),
            })
            .collect(),
    });
    hints.collect()
}

/// By their bits (BOLT 9).
fn features(invoice: &Bolt11Invoice) -> HashMap<u32, Feature> {
    let flags = invoice
        .features()
        .map(|it| it.le_flags())
        .unwrap_or_default();
    let bits = (0u32..).zip(flags).flat_map(|(at, byte)| {
        let set = (0..8).filter(move |bit| byte & (1 << bit) != 0);
        set.map(move |bit| at * 8 + bit)
    });
    let feature = |bit: u32| {
        let name = match bit / 2 {
            4 => "tlv-onion",
            7 => "payment-addr",
            8 => "multi-path-payments",
            12 => "route-blinding",
            15 => "amp",
            24 => "payment-metadata",
            _ => "unknown",
        };
        let feature = Feature {
            name: name.into(),
            is_required: bit.is_multiple_of(2),
            is_known: name != "unknown",
        };
        (bit, feature)
    };
    bits.map(feature).collect()
}
