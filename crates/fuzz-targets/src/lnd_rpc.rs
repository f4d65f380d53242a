//! Apps at lnd's RPC: macaroons, messages of gRPC, paths and bodies of REST, at a node that is made up.

use std::sync::Arc;

use axum::Router;
use longhand_lnd::node::{Invoice, Node, Page, Payment, Transaction};
use longhand_lnd::proto::lnrpc::{self, SendCoinsRequest};
use longhand_lnd::proto::routerrpc::SendPaymentRequest;
use longhand_lnd::testing::{
    ADDRESS, ALL, Asked, FakeNode, OneApp, Phone, ROOT_KEY, answer, macaroon, macaroon_of,
};
use longhand_lnd::{Macaroon, Rights, RootKey, routes};
use prost::{Message, Oneof};
use serde_json::Value;

use crate::node;

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(oneof = "Event", tags = "1, 2, 3, 4")]
    event: Option<Event>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Event {
    /// A macaroon in its binary form, which is read.
    #[prost(bytes, tag = "1")]
    Macaroon(Vec<u8>),
    #[prost(message, tag = "2")]
    Grpc(Grpc),
    #[prost(message, tag = "3")]
    Rest(Rest),
    /// What the phone does from now on, as [`phone`] numbers it.
    #[prost(uint32, tag = "4")]
    Phone(u32),
}

#[derive(Clone, PartialEq, Message)]
struct Grpc {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bytes, tag = "2")]
    message: Vec<u8>,
    #[prost(message, tag = "3")]
    shown: Option<Shown>,
}

#[derive(Clone, PartialEq, Message)]
struct Rest {
    #[prost(string, tag = "1")]
    method: String,
    #[prost(string, tag = "2")]
    path: String,
    #[prost(bytes, tag = "3")]
    body: Vec<u8>,
    #[prost(message, tag = "4")]
    shown: Option<Shown>,
}

/// The macaroon of a call.
#[derive(Clone, PartialEq, Message)]
struct Shown {
    /// 1 = that may read, 2 = expired, 3 = of another key, 4 = with this text, else = with all rights.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    hex: String,
}

const STEPS: usize = 8;
/// So that invoices of the seeds never expire.
const NOW_UNIX_S: u64 = 4_000_000_000;
/// The longest line of an error, in bytes, with gRPC's escapes.
const LONGEST_LINE: usize = 6_000;

fn phone(number: u32) -> Phone {
    match number {
        0 => Phone::Here,
        1 => Phone::Away,
        2 => Phone::Refuses,
        _ => Phone::Silent,
    }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    if script.steps.is_empty() {
        return;
    }
    node::run(|| async {
        let mut world = World::new();
        for step in script.steps.into_iter().take(STEPS) {
            if let Some(event) = step.event {
                world.play(event).await;
            }
        }
    });
}

struct World {
    node: Arc<FakeNode>,
    routes: Router,
    phone: Phone,
}

/// What apps can change.
type State = (Vec<Invoice>, Vec<Payment>, Vec<Transaction>);

impl World {
    fn new() -> World {
        let node = Arc::new(FakeNode::new(|| NOW_UNIX_S));
        World {
            routes: routes(OneApp::new(node.clone())),
            phone: Phone::Here,
            node,
        }
    }

    async fn play(&mut self, event: Event) {
        match event {
            Event::Macaroon(bytes) => read(&bytes),
            Event::Phone(number) => {
                self.phone = phone(number);
                self.node.set_phone(self.phone);
            }
            Event::Grpc(call) => {
                let shown = call.shown.unwrap_or_default();
                let asked = Asked {
                    method: "POST".into(),
                    path: call.path,
                    is_grpc: true,
                    macaroon: shown.hex(),
                    body: call.message,
                };
                self.ask(&shown, asked).await;
            }
            Event::Rest(call) => {
                let shown = call.shown.unwrap_or_default();
                let asked = Asked {
                    method: call.method,
                    path: call.path,
                    is_grpc: false,
                    macaroon: shown.hex(),
                    body: call.body,
                };
                self.ask(&shown, asked).await;
            }
        }
    }

    async fn ask(&self, shown: &Shown, asked: Asked) {
        let before = self.state().await;
        let (is_grpc, path) = (asked.is_grpc, asked.path.clone());
        let told = answer(&self.routes, asked).await;
        let after = self.state().await;
        if !shown.is_good() || shown.kind == 1 || self.phone != Phone::Here {
            assert_eq!(before, after, "{path} changed something");
        }
        let Some(told) = told else {
            return;
        };
        let is_answered = told.status == 200 && told.grpc_status == 0;
        assert!(shown.is_good() || !is_answered, "{path} let a stranger in");
        assert!(told.status != 500, "{told:?}");
        assert!(told.line.len() < LONGEST_LINE && !told.line.contains(char::is_control));
        if !is_grpc {
            rest(&told.body);
        }
    }

    async fn state(&self) -> State {
        let page = Page {
            above: 0,
            below: u64::MAX,
            newest_first: false,
            limit: 1_000,
        };
        let known = "it is known";
        (
            self.node.invoices(page, false).await.expect(known),
            self.node.payments(page, false).await.expect(known),
            self.node.transactions().await.expect(known),
        )
    }
}

impl Shown {
    fn hex(&self) -> String {
        let read = Rights {
            read: true,
            ..Rights::default()
        };
        let made = match self.kind {
            1 => macaroon(read, None),
            2 => macaroon(ALL, Some(1)),
            3 => macaroon_of([9; 32], ALL, None),
            4 => return self.hex.clone(),
            _ => macaroon(ALL, None),
        };
        made.to_hex().to_string()
    }

    /// Whether it lets an app in, to whatever it allows.
    fn is_good(&self) -> bool {
        let key = RootKey::new(ROOT_KEY);
        match self.kind {
            2 | 3 => false,
            // Later than it expires by any clock.
            4 => Macaroon::from_hex(&self.hex).is_ok_and(|it| it.verify(&key, None, 0).is_ok()),
            _ => true,
        }
    }
}

/// A macaroon that can be read is written the same, and lets nobody in but with the key that it was made with.
fn read(bytes: &[u8]) {
    let Ok(read) = Macaroon::parse(bytes) else {
        return;
    };
    assert_eq!(Macaroon::parse(&read.to_bytes()), Ok(read.clone()));
    assert_eq!(Macaroon::from_hex(&read.to_hex()), Ok(read.clone()));
    let other = RootKey::new([0; 32]);
    assert!(read.verify(&other, None, 0).is_err());
    let (_, _) = (read.app(), read.expires_unix_s());
}

/// Each line of a reply is JSON; an error is one line.
fn rest(body: &[u8]) {
    let text = std::str::from_utf8(body).expect("a reply is text");
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).expect("a reply is JSON");
        let error = value.get("error").unwrap_or(&value);
        if let (Some(message), true) = (error["message"].as_str(), error["details"].is_array()) {
            assert!(
                !message.is_empty() && !message.contains(char::is_control),
                "{message}"
            );
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let invoice = FakeNode::foreign_invoice(20_000_000, NOW_UNIX_S);
    let shown = |kind| {
        Some(Shown {
            kind,
            ..Shown::default()
        })
    };
    let grpc_as = |kind, name: &str, message: Vec<u8>| {
        Event::Grpc(Grpc {
            path: format!("/{name}"),
            message,
            shown: shown(kind),
        })
    };
    let grpc = |name: &str, message: Vec<u8>| grpc_as(0, name, message);
    let rest_as = |kind, method: &str, path: &str, body: &str| {
        Event::Rest(Rest {
            method: method.into(),
            path: path.into(),
            body: body.into(),
            shown: shown(kind),
        })
    };
    let get = |path: &str| rest_as(0, "GET", path, "");
    let post = |path: &str, body: &str| rest_as(0, "POST", path, body);
    let add = lnrpc::Invoice {
        memo: "tea".into(),
        value_msat: 5_000,
        expiry: 600,
        ..lnrpc::Invoice::default()
    };
    let pay = SendPaymentRequest {
        payment_request: invoice.clone(),
        timeout_seconds: 60,
        fee_limit_sat: 10,
        ..SendPaymentRequest::default()
    };
    let coins = SendCoinsRequest {
        addr: ADDRESS.into(),
        amount: 50_000,
        sat_per_vbyte: 2,
        ..SendCoinsRequest::default()
    };
    let list = lnrpc::ListInvoiceRequest {
        index_offset: 1 << 50,
        num_max_invoices: 3,
        reversed: true,
        creation_date_start: 1,
        creation_date_end: NOW_UNIX_S,
        ..lnrpc::ListInvoiceRequest::default()
    };
    let history = lnrpc::GetTransactionsRequest {
        start_height: 200,
        end_height: 1,
        index_offset: 1,
        max_transactions: 1,
        ..lnrpc::GetTransactionsRequest::default()
    };
    let decode = lnrpc::PayReqString {
        pay_req: invoice.clone(),
    };
    let hub = lnrpc::NodeInfoRequest {
        pub_key: "02".repeat(33),
        include_channels: true,
    };
    let pay_json = format!(
        r#"{{"payment_request":"{invoice}","timeout_seconds":60,"fee_limit_sat":"10","outgoing_chan_ids":[]}}"#
    );
    let own = Shown {
        kind: 4,
        hex: macaroon(ALL, None)
            .narrowed("ipaddr 127.0.0.1")
            .to_hex()
            .to_string(),
    };
    let all = [
        vec![
            Event::Macaroon(macaroon(ALL, Some(NOW_UNIX_S)).to_bytes().to_vec()),
            Event::Macaroon(
                macaroon(ALL, None)
                    .narrowed("time-before x")
                    .to_bytes()
                    .to_vec(),
            ),
        ],
        vec![
            grpc("lnrpc.Lightning/GetInfo", vec![]),
            grpc("lnrpc.Lightning/ChannelBalance", vec![]),
            grpc("lnrpc.Lightning/WalletBalance", vec![]),
            grpc("lnrpc.Lightning/ListChannels", vec![8, 1]),
            grpc("lnrpc.Lightning/PendingChannels", vec![]),
            grpc("lnrpc.Lightning/ClosedChannels", vec![24, 1]),
            grpc("walletrpc.WalletKit/ListAccounts", vec![]),
        ],
        vec![
            grpc("lnrpc.Lightning/AddInvoice", add.encode_to_vec()),
            grpc("lnrpc.Lightning/ListInvoices", list.encode_to_vec()),
            grpc("lnrpc.Lightning/SubscribeInvoices", vec![8, 1]),
        ],
        vec![
            grpc("lnrpc.Lightning/DecodePayReq", decode.encode_to_vec()),
            grpc("routerrpc.Router/SendPaymentV2", pay.encode_to_vec()),
            grpc("routerrpc.Router/SendPaymentV2", pay.encode_to_vec()),
            grpc("lnrpc.Lightning/ListPayments", vec![8, 1, 32, 1]),
        ],
        vec![
            grpc("lnrpc.Lightning/SendCoins", coins.encode_to_vec()),
            grpc("lnrpc.Lightning/GetTransactions", history.encode_to_vec()),
            grpc("lnrpc.Lightning/NewAddress", vec![8, 4]),
        ],
        vec![
            Event::Phone(1),
            grpc("routerrpc.Router/SendPaymentV2", pay.encode_to_vec()),
            Event::Phone(3),
            grpc("lnrpc.Lightning/SendCoins", coins.encode_to_vec()),
        ],
        vec![
            grpc_as(1, "lnrpc.Lightning/AddInvoice", add.encode_to_vec()),
            grpc_as(2, "lnrpc.Lightning/GetInfo", vec![]),
            grpc_as(3, "lnrpc.Lightning/GetNodeInfo", hub.encode_to_vec()),
            grpc("lnrpc.Lightning/OpenChannel", vec![]),
        ],
        vec![
            get("/v1/getinfo"),
            get("/v1/channels?active_only=true&peer=AgI%3D"),
            get("/v1/invoices?reversed=true&num_max_invoices=500"),
            get(&format!("/v1/graph/node/{}", "02".repeat(33))),
            get(&format!("/v1/payreq/{invoice}")),
            get("/v1/transactions?end_height=-1"),
            get("/v1/newaddress?type=WITNESS_PUBKEY_HASH"),
        ],
        vec![
            post(
                "/v1/invoices",
                r#"{"memo":"tea","value_msat":"7000","private":true,"rPreimage":""}"#,
            ),
            post("/v2/router/send", &pay_json),
            post(
                "/v1/transactions",
                &format!(r#"{{"addr":"{ADDRESS}","amount":1000,"label":null}}"#),
            ),
            get("/v2/invoices/subscribe/AAAA"),
            get(&format!("/v1/invoice/{}", "00".repeat(32))),
            get("/v1/graph"),
        ],
        vec![
            rest_as(3, "GET", "/v1/getinfo", ""),
            Event::Rest(Rest {
                method: "GET".into(),
                path: "/v1/getinfo".into(),
                body: vec![],
                shown: Some(own),
            }),
        ],
    ];
    let scripts = all.map(|events| {
        let step = |event| Step { event: Some(event) };
        let steps = events.into_iter().map(step).collect();
        Script { steps }.encode_to_vec()
    });
    scripts.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the seeds: good calls are answered, and do what they are for.
    #[test]
    fn good_calls_are_answered() {
        let scripts = seeds();
        let good = [2, 3, 4, 8].map(|at| Script::decode(&scripts[at][..]).unwrap());
        node::run(|| async {
            for (script, expected) in
                good.into_iter()
                    .zip([(1, 0, 1), (0, 1, 1), (0, 0, 2), (1, 1, 2)])
            {
                let mut world = World::new();
                for step in script.steps {
                    world.play(step.event.unwrap()).await;
                }
                let (invoices, payments, transactions) = world.state().await;
                assert_eq!(
                    (invoices.len(), payments.len(), transactions.len()),
                    expected
                );
            }
        });
    }
}
