//! Answers of the host as text for people, or as one JSON object.

use bitcoin::hex::DisplayHex;
use longhand_link::PairingCode as LinkPairingCode;
use longhand_proto::operator::*;
use serde_json::{Value, json};

/// An answer in both forms.
pub(super) struct Shown {
    json: Value,
    text: String,
}

impl Shown {
    /// To standard output. An output that is closed is no error.
    pub(super) fn print(&self, json: bool) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        let written = match json {
            true => writeln!(out, "{}", self.json),
            false => writeln!(out, "{}", self.text.trim_end()),
        };
        let _ = written.and_then(|()| out.flush());
    }
}

pub(super) fn done(word: &str) -> Shown {
    Shown {
        json: json!({ "ok": true }),
        text: word.to_owned(),
    }
}

pub(super) fn status(status: &StatusReply) -> Shown {
    let json = json!({
        "version": status.version,
        "network": status.network,
        "block_height": status.block_height,
        "chain_reachable": status.chain_reachable,
        "hub_node_id": hex(&status.hub_node_id),
        "owners": status.owners,
        "nodes": status.nodes,
        "links": status.links,
        "link_addresses": status.link_addresses,
        "peer_address": status.peer_address,
        "tip_age_s": status.tip_age_s,
        "problems": status.problems,
        "fee_rates": status.fee_rates.map(|rates| json!({
            "urgent_sat_per_kw": rates.urgent,
            "normal_sat_per_kw": rates.normal,
            "background_sat_per_kw": rates.background,
            "minimum_sat_per_kw": rates.minimum,
            "is_estimate": rates.is_estimate,
        })),
    });
    let age = status.tip_age_s.map_or_else(String::new, |age_s| {
        format!(", found {} minutes ago", age_s / 60)
    });
    let away = match status.chain_reachable {
        true => "",
        false => ", and the source cannot be reached now",
    };
    let chain = format!("height {}{age}{away}", status.block_height);
    let hub = match status.hub_node_id.is_empty() {
        true => "does not run yet".to_owned(),
        false => format!("{}@{}", hex(&status.hub_node_id), status.peer_address),
    };
    let fees = status.fee_rates.map_or_else(String::new, |rates| {
        let source = match rates.is_estimate {
            true => "estimated",
            false => "the fallback: there is no estimate",
        };
        format!("{} sat per 1,000 weight units, {source}", rates.normal)
    });
    let mut text = lines(&[
        ("version", status.version.clone()),
        ("network", status.network.clone()),
        ("chain", chain),
        ("fee rate", fees),
        ("hub", hub),
        ("owners", status.owners.to_string()),
        ("nodes", status.nodes.to_string()),
        ("links", status.links.to_string()),
        ("phones dial", status.link_addresses.join(", ")),
    ]);
    for problem in &status.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    Shown { json, text }
}

/// The code as text, and as a picture for the phone's camera.
pub(super) fn pairing_code(code: &PairingCode) -> Shown {
    let json = json!({
        "owner": code.owner,
        "code": code.code,
        "expires_unix_s": code.expires_unix_s,
    });
    let qr = code
        .code
        .parse::<LinkPairingCode>()
        .ok()
        .and_then(|code| code.to_qr().ok());
    let text = format!(
        "{}\n\n{}\n\nFor the phone of {} alone: whoever has this code first is the owner.",
        qr.unwrap_or_default(),
        code.code,
        code.owner
    );
    Shown { json, text }
}

pub(super) fn owners(reply: &ListOwnersReply) -> Shown {
    let json = reply.owners.iter().map(|owner| {
        json!({
            "name": owner.name,
            "paired": owner.paired,
            "node_id": hex(&owner.node_id),
            "link_live": owner.link_live,
            "wake_url": owner.wake_url,
            "problem": owner.problem,
        })
    });
    let rows = reply.owners.iter().map(|owner| {
        let phone = match (owner.paired, owner.link_live) {
            (_, true) => "here",
            (true, false) => "away",
            (false, false) => "not paired",
        };
        vec![
            owner.name.clone(),
            phone.to_owned(),
            hex(&owner.node_id),
            owner.wake_url.clone(),
            owner.problem.clone(),
        ]
    });
    Shown {
        json: json!({ "owners": json.collect::<Vec<_>>() }),
        text: table(
            &["owner", "phone", "node id", "wake URL", "problem"],
            rows.collect(),
        ),
    }
}

pub(super) fn nodes(reply: &ListNodesReply) -> Shown {
    let json = reply.nodes.iter().map(|node| {
        json!({
            "owner": node.owner,
            "node_id": hex(&node.node_id),
            "state": node.state,
            "channels": node.channels,
            "usable_channels": node.usable_channels,
            "peers": node.peers,
            "pending_htlcs": node.pending_htlcs,
            "deadline_height": node.deadline_height,
            "lightning_msat": node.lightning_msat,
            "onchain_sat": node.onchain_sat,
            "onchain_pending_sat": node.onchain_pending_sat,
            "closing_sat": node.closing_sat,
            "restarts_after_panic": node.restarts_after_panic,
            "signer_chain": node.signer_chain,
            "signer_batches": node.signer_batches,
            "problem": node.problem,
        })
    });
    let rows = reply.nodes.iter().map(|node| {
        vec![
            node.owner.clone(),
            node.state.clone(),
            format!("{}/{}", node.usable_channels, node.channels),
            node.lightning_msat.to_string(),
            (node.onchain_sat + node.onchain_pending_sat).to_string(),
            node.closing_sat.to_string(),
            hex(&node.node_id),
            node.problem.clone(),
        ]
    });
    let head = [
        "owner",
        "state",
        "usable",
        "lightning msat",
        "on chain sat",
        "closing sat",
        "node id",
        "problem",
    ];
    Shown {
        json: json!({ "nodes": json.collect::<Vec<_>>() }),
        text: table(&head, rows.collect()),
    }
}

pub(super) fn hub_address(reply: &HubAddressReply) -> Shown {
    Shown {
        json: json!({ "address": reply.address }),
        text: reply.address.clone(),
    }
}

pub(super) fn hub_balance(balance: &HubBalanceReply) -> Shown {
    let json = json!({
        "onchain_confirmed_sat": balance.onchain_confirmed_sat,
        "onchain_pending_sat": balance.onchain_pending_sat,
        "lightning_msat": balance.lightning_msat,
        "closing_sat": balance.closing_sat,
    });
    let text = lines(&[
        ("on chain", format!("{} sat", balance.onchain_confirmed_sat)),
        (
            "not confirmed",
            format!("{} sat", balance.onchain_pending_sat),
        ),
        ("lightning", format!("{} msat", balance.lightning_msat)),
        ("closing", format!("{} sat", balance.closing_sat)),
    ]);
    Shown { json, text }
}

pub(super) fn hub_opened(reply: &HubOpenChannelReply) -> Shown {
    let channel_id = hex(&reply.channel_id);
    let json = json!({ "channel_id": channel_id, "funding_outpoint": reply.funding_outpoint });
    let text = lines(&[
        ("channel", channel_id),
        ("funding", reply.funding_outpoint.clone()),
    ]);
    Shown { json, text }
}

pub(super) fn hub_invoice(reply: &HubInvoiceReply) -> Shown {
    Shown {
        json: json!({ "bolt11": reply.bolt11 }),
        text: reply.bolt11.clone(),
    }
}

pub(super) fn hub_paid(reply: &HubPayReply) -> Shown {
    let (payment_hash, preimage) = (hex(&reply.payment_hash), hex(&reply.preimage));
    let json = json!({
        "payment_hash": payment_hash,
        "preimage": preimage,
        "fee_msat": reply.fee_msat,
    });
    let fee = format!("{} msat", reply.fee_msat);
    let text = lines(&[("paid", payment_hash), ("preimage", preimage), ("fee", fee)]);
    Shown { json, text }
}

pub(super) fn hub_channels(reply: &HubChannelsReply) -> Shown {
    let json = reply.channels.iter().map(|channel| {
        json!({
            "channel_id": hex(&channel.channel_id),
            "counterparty_node_id": hex(&channel.counterparty_node_id),
            "funding_outpoint": channel.funding_outpoint,
            "capacity_sat": channel.capacity_sat,
            "balance_msat": channel.balance_msat,
            "ready": channel.ready,
            "usable": channel.usable,
            "announced": channel.announced,
            "pending_htlcs": channel.pending_htlcs,
        })
    });
    let rows = reply.channels.iter().map(|channel| {
        let state = match (channel.ready, channel.usable) {
            (_, true) => "usable",
            (true, false) => "peer away",
            (false, false) => "not ready",
        };
        vec![
            state.to_owned(),
            channel.capacity_sat.to_string(),
            channel.balance_msat.to_string(),
            hex(&channel.counterparty_node_id),
            hex(&channel.channel_id),
        ]
    });
    Shown {
        json: json!({ "channels": json.collect::<Vec<_>>() }),
        text: table(
            &["state", "capacity sat", "balance msat", "peer", "channel"],
            rows.collect(),
        ),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

/// One name and value a line, the values below each other.
fn lines(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"))
        .collect()
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["ann".into(), "away".into()],
            vec!["bartholomew".into(), "é".into()],
        ];
        let expected = "owner        phone\nann          away\nbartholomew  é\n";
        assert_eq!(table(&["owner", "phone"], rows), expected);
    }

    #[test]
    fn values_that_are_not_known_yet_are_shown_as_such() {
        let status = status(&StatusReply {
            peer_address: "127.0.0.1:9735".into(),
            ..Default::default()
        });
        assert!(status.text.contains("does not run yet"));
        assert!(status.text.contains("cannot be reached now"));
    }
}
