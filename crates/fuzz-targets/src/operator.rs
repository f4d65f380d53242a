//! An operator's requests, at a host that listens to nothing: it has a hub, and an owner whose phone is away.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hex::DisplayHex;
use longhand_host::{
    Host, HostConfig, Network, Operator, OperatorError, PeerDial, WakeCall, WakeError, WakeUrl,
    fuzzing,
};
use longhand_link::{LinkKeypair, OwnerId, PairingCode as LinkCode};
use longhand_node::PeerStream;
use longhand_proto::Code;
use longhand_proto::operator::*;
use longhand_store::{Batch, MemoryStore, Store, Write};
use prost::{Message, Oneof};
use serde_json::json;
use tokio::time::timeout;

use crate::chain::SmallChain;
use crate::node::{self, PATIENCE};
use crate::scratch;

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(message, repeated, tag = "1")]
    requests: Vec<Request>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(
        oneof = "Ask",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23"
    )]
    ask: Option<Ask>,
}

/// As in `operator.proto`, in its order, with later ones at the end.
#[derive(Clone, PartialEq, Oneof)]
enum Ask {
    #[prost(message, tag = "1")]
    Status(StatusRequest),
    #[prost(message, tag = "2")]
    CreateOwner(CreateOwnerRequest),
    #[prost(message, tag = "3")]
    RenewPairing(RenewPairingRequest),
    #[prost(message, tag = "4")]
    ListOwners(ListOwnersRequest),
    #[prost(message, tag = "5")]
    ListNodes(ListNodesRequest),
    #[prost(message, tag = "6")]
    GetNode(GetNodeRequest),
    #[prost(message, tag = "7")]
    ResetSignerChain(ResetSignerChainRequest),
    #[prost(message, tag = "8")]
    HubAddress(HubAddressRequest),
    #[prost(message, tag = "9")]
    HubBalance(HubBalanceRequest),
    #[prost(message, tag = "10")]
    HubOpenChannel(HubOpenChannelRequest),
    #[prost(message, tag = "11")]
    HubCloseChannel(HubCloseChannelRequest),
    #[prost(message, tag = "12")]
    HubInvoice(HubInvoiceRequest),
    #[prost(message, tag = "13")]
    HubPay(HubPayRequest),
    #[prost(message, tag = "14")]
    HubConnect(HubConnectRequest),
    #[prost(message, tag = "15")]
    HubChannels(HubChannelsRequest),
    #[prost(message, tag = "16")]
    HubSend(HubSendRequest),
    #[prost(message, tag = "17")]
    HubFees(HubFeesRequest),
    #[prost(message, tag = "18")]
    HubPayments(HubPaymentsRequest),
    #[prost(message, tag = "19")]
    HubForwards(HubForwardsRequest),
    #[prost(message, tag = "20")]
    SetWakeUrl(SetWakeUrlRequest),
    #[prost(message, tag = "21")]
    HubSends(HubSendsRequest),
    #[prost(message, tag = "22")]
    HubBump(HubReplaceRequest),
    #[prost(message, tag = "23")]
    HubAbandon(HubReplaceRequest),
}

const REQUESTS: usize = 8;
/// The owner that is there already.
const OWNER: &str = "alice";
/// Checks of a host that starts, and the pause between two.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    if script.requests.is_empty() {
        return;
    }
    node::run(|| async {
        let dir = scratch::dir();
        let host = start(dir.path()).await;
        let operator = host.operator();
        for request in script.requests.into_iter().take(REQUESTS) {
            if let Some(ask) = request.ask {
                play(&operator, ask).await;
            }
        }
        assert_eq!(
            fuzzing::hub_restarts(&host).await,
            Some(0),
            "the hub panicked"
        );
        for node in seen(&operator).await.nodes {
            assert_eq!(node.restarts_after_panic, 0, "a node panicked");
        }
        host.stop().await;
        let ended = operator.status().await;
        assert!(ended.is_err_and(|error| error.code == Code::HostStopped));
    });
}

/// A host whose hub runs, and the owner's node.
async fn start(dir: &Path) -> Host {
    let mut config = HostConfig {
        data_dir: dir.to_owned(),
        ..HostConfig::default()
    };
    config.link.addresses = vec!["grpc://127.0.0.1:1".into()];
    let store = Arc::new(MemoryStore::new());
    write_owner(&store).await;
    let source = Arc::new(SmallChain::new());
    let host = Host::embed(config, store, source, Arc::new(Nowhere)).await;
    let host = host.expect("a host starts");
    started(&host.operator()).await;
    host
}

/// Writes the owner's record, as a host stores it after a pairing.
async fn write_owner(store: &MemoryStore) {
    let phone = LinkKeypair::from_bytes([8; 32]).public().to_string();
    let owner = json!({
        "id": OwnerId::generate().unwrap().to_string(),
        "phone": phone,
        "registration": node::registration().encode_to_vec().to_lower_hex_string(),
        "registered_by": phone,
    });
    let put = Write::Put(format!("owner/{OWNER}"), owner.to_string().into_bytes());
    let batch = Batch {
        namespace: "host".into(),
        epoch: 0,
        writes: vec![put],
    };
    store.commit(batch).await.expect("it is written");
}

async fn started(operator: &Operator) {
    for _ in 0..LOOKS {
        let owner = GetNodeRequest {
            owner: OWNER.into(),
        };
        if operator.hub_balance().await.is_ok() && operator.get_node(owner).await.is_ok() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("the host does not start");
}

/// The state of a host, as its operator reads it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    owners: Vec<Owner>,
    nodes: Vec<NodeView>,
    channels: Vec<HubChannel>,
    balance: HubBalanceReply,
}

async fn seen(operator: &Operator) -> Seen {
    let running = "the host runs";
    Seen {
        owners: operator.list_owners().await.expect(running).owners,
        nodes: operator.list_nodes().await.expect(running).nodes,
        channels: operator.hub_channels().await.expect(running).channels,
        balance: operator.hub_balance().await.expect(running),
    }
}

async fn play(operator: &Operator, ask: Ask) {
    let before = seen(operator).await;
    // Some wait for an event that never happens.
    let Ok(answer) = timeout(PATIENCE, answer(operator, ask.clone())).await else {
        return;
    };
    let after = seen(operator).await;
    match (answer, ask) {
        (Err(error), _) => {
            let line = error.to_string();
            assert!(
                !line.is_empty() && !line.contains(char::is_control),
                "{line:?}"
            );
            assert!(error.code != Code::Internal, "{line}");
            assert_eq!(after, before, "a refused request changed something");
        }
        (Ok(()), Ask::CreateOwner(made)) => {
            let is_it = |owner: &&Owner| owner.name == made.name;
            assert_eq!(after.owners.len(), before.owners.len() + 1);
            assert!(after.owners.iter().any(|owner| is_it(&owner)));
            assert!(!before.owners.iter().any(|owner| is_it(&owner)));
        }
        (Ok(()), Ask::RenewPairing(renewed)) => {
            let mut expected = before.owners;
            for owner in expected.iter_mut().filter(|o| o.name == renewed.owner) {
                // Its phone is shut out.
                (owner.paired, owner.link_live) = (false, false);
            }
            assert_eq!(after.owners, expected);
        }
        (Ok(()), Ask::SetWakeUrl(set)) => {
            let is_it = |owner: &&Owner| owner.name == set.owner;
            let owner = after.owners.iter().find(is_it).expect("it is there");
            assert!(owner.wake_url.is_empty() || set.wake_url.is_none_or(|url| !url.is_empty()));
            assert!(owner.phone_wake_urls.is_empty() || !set.clear_phones);
        }
        (Ok(()), _) => assert_eq!(after.owners, before.owners),
    }
}

async fn answer(operator: &Operator, ask: Ask) -> Result<(), OperatorError> {
    match ask {
        Ask::Status(_) => drop(operator.status().await?),
        Ask::CreateOwner(create) => {
            let name = create.name.clone();
            is_good(&name, &operator.create_owner(create).await?);
        }
        Ask::RenewPairing(renew) => {
            let name = renew.owner.clone();
            is_good(&name, &operator.renew_pairing(renew).await?);
        }
        Ask::ListOwners(_) => drop(operator.list_owners().await?),
        Ask::ListNodes(_) => drop(operator.list_nodes().await?),
        Ask::GetNode(get) => {
            let name = get.owner.clone();
            assert_eq!(operator.get_node(get).await?.owner, name);
        }
        Ask::ResetSignerChain(reset) => drop(operator.reset_signer_chain(reset).await?),
        Ask::HubAddress(_) => drop(operator.hub_address().await?),
        Ask::HubBalance(_) => drop(operator.hub_balance().await?),
        Ask::HubOpenChannel(open) => drop(operator.hub_open_channel(open).await?),
        Ask::HubCloseChannel(close) => drop(operator.hub_close_channel(close).await?),
        Ask::HubInvoice(asked) => {
            let made = operator.hub_invoice(asked.clone()).await?;
            let invoice: lightning_invoice::Bolt11Invoice = made.bolt11.parse().unwrap();
            let amount_msat = invoice.amount_milli_satoshis().unwrap_or(0);
            assert_eq!(amount_msat, asked.amount_msat);
        }
        Ask::HubPay(pay) => drop(operator.hub_pay(pay).await?),
        Ask::HubConnect(connect) => drop(operator.hub_connect(connect).await?),
        Ask::HubChannels(_) => drop(operator.hub_channels().await?),
        Ask::HubSend(send) => drop(operator.hub_send(send).await?),
        Ask::HubFees(fees) => {
            let set = operator.hub_fees(fees).await?;
            assert!(fees.base_msat.is_none_or(|base| base == set.base_msat));
        }
        Ask::HubPayments(asked) => drop(operator.hub_payments(asked).await?),
        Ask::HubForwards(asked) => drop(operator.hub_forwards(asked).await?),
        Ask::HubSends(_) => drop(operator.hub_sends().await?),
        Ask::HubBump(bump) => drop(operator.hub_bump(bump).await?),
        Ask::HubAbandon(abandon) => drop(operator.hub_abandon(abandon).await?),
        Ask::SetWakeUrl(set) => drop(operator.set_wake_url(set).await?),
    }
    Ok(())
}

/// A pairing code can be decoded by a phone, and has the expiry of the reply.
fn is_good(name: &str, made: &PairingCode) {
    assert_eq!(made.owner, name);
    let code: LinkCode = made.code.parse().expect("a code can be read");
    assert_eq!(code.expires_unix_s, made.expires_unix_s);
}

/// A network without peers.
struct Nowhere;

#[async_trait]
impl Network for Nowhere {
    async fn dial(&self, _: PeerDial<'_>) -> io::Result<Box<dyn PeerStream>> {
        Err(io::Error::other("no such peer"))
    }

    async fn wake(&self, _: &WakeUrl, _: &WakeCall) -> Result<(), WakeError> {
        Ok(())
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let peer = || {
        let generator = bitcoin::secp256k1::constants::GENERATOR_X;
        [&[3][..], &generator].concat()
    };
    let create = |name: &str, wake_url: &str| {
        Ask::CreateOwner(CreateOwnerRequest {
            name: name.into(),
            pairing_expires_s: 600,
            wake_url: wake_url.into(),
        })
    };
    let renew = |owner: &str, pairing_expires_s| {
        Ask::RenewPairing(RenewPairingRequest {
            owner: owner.into(),
            pairing_expires_s,
        })
    };
    let open = |owner: &str, node_id| {
        Ask::HubOpenChannel(HubOpenChannelRequest {
            owner: owner.into(),
            node_id,
            address: "127.0.0.1:9735".into(),
            amount_sat: 1_000_000,
            push_msat: 5_000,
            announced: true,
            feerate_sat_per_kw: 0,
        })
    };
    let set = |url: Option<&str>| {
        Ask::SetWakeUrl(SetWakeUrlRequest {
            owner: OWNER.into(),
            wake_url: url.map(Into::into),
            clear_phones: url.is_none(),
        })
    };
    let get = |owner: &str| {
        Ask::GetNode(GetNodeRequest {
            owner: owner.into(),
        })
    };
    // BOLT 11's first example, which is of another network.
    let invoice = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";
    let reset = Ask::ResetSignerChain(ResetSignerChainRequest {
        owner: OWNER.into(),
    });
    let all = [
        vec![Ask::Status(StatusRequest {})],
        vec![create("bob", "https://push.example/bob"), renew("bob", 0)],
        vec![create("bob", ""), create("bob", ""), get("bob")],
        vec![create("no name", ""), create("carol", "ftp://x")],
        vec![create("", "")],
        vec![renew("no\nbody", u32::MAX), get("no\u{1b}body")],
        vec![
            Ask::ListOwners(ListOwnersRequest {}),
            Ask::ListNodes(ListNodesRequest {}),
        ],
        vec![get(OWNER), reset, renew(OWNER, 1)],
        vec![
            set(Some("https://push.example/alice")),
            set(Some("")),
            set(None),
        ],
        vec![set(Some("nowhere"))],
        vec![
            Ask::HubAddress(HubAddressRequest {}),
            Ask::HubBalance(HubBalanceRequest {}),
            Ask::HubChannels(HubChannelsRequest {}),
        ],
        vec![open("", peer()), open(OWNER, vec![])],
        vec![open(OWNER, peer()), open("", vec![]), open("", vec![2; 33])],
        vec![
            Ask::HubSend(HubSendRequest {
                address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".into(),
                amount_sat: 100_000,
                ..HubSendRequest::default()
            }),
            Ask::HubFees(HubFeesRequest {
                base_msat: Some(0),
                proportional_millionths: Some(u32::MAX),
            }),
            Ask::HubSends(HubSendsRequest {}),
            Ask::HubBump(HubReplaceRequest {
                txid: "ab".repeat(32),
                feerate_sat_per_kw: 1_000,
            }),
            Ask::HubAbandon(HubReplaceRequest::default()),
            Ask::HubPayments(HubPaymentsRequest { limit: 0 }),
            Ask::HubForwards(HubForwardsRequest { limit: u32::MAX }),
        ],
        vec![Ask::HubCloseChannel(HubCloseChannelRequest {
            channel_id: vec![1; 32],
            force: true,
        })],
        vec![
            Ask::HubInvoice(HubInvoiceRequest {
                amount_msat: 50_000_000,
                description: "coffee".into(),
                expiry_s: 3600,
            }),
            Ask::HubInvoice(HubInvoiceRequest {
                amount_msat: u64::MAX,
                description: "x".repeat(640),
                expiry_s: u32::MAX,
            }),
        ],
        vec![Ask::HubPay(HubPayRequest {
            bolt11: invoice.into(),
            amount_msat: 1_000_000,
            max_fee_msat: Some(1_000),
        })],
        vec![Ask::HubConnect(HubConnectRequest {
            node_id: peer(),
            address: "127.0.0.1:9735".into(),
        })],
    ];
    let scripts = all.map(|asks| {
        let request = |ask| Request { ask: Some(ask) };
        let requests = asks.into_iter().map(request).collect();
        Script { requests }.encode_to_vec()
    });
    scripts.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the seeds: an owner can be made, and a good request is answered.
    #[test]
    fn good_requests_are_answered() {
        let scripts = seeds();
        let good = [0, 1, 6, 7, 8, 10].map(|at| Script::decode(&scripts[at][..]).unwrap());
        node::run(|| async {
            let dir = scratch::dir();
            let host = start(dir.path()).await;
            let operator = host.operator();
            for ask in good.into_iter().flat_map(|script| script.requests) {
                answer(&operator, ask.ask.unwrap()).await.unwrap();
            }
            assert_eq!(seen(&operator).await.owners.len(), 2);
            host.stop().await;
        });
    }
}
