use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use super::*;
use crate::testing::Phone;

impl World {
    async fn rest(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let hex = macaroon(crate::testing::ALL, None).to_hex();
        let request = Client::new().request(method, format!("{}{path}", self.address));
        let request = request.header("Grpc-Metadata-macaroon", hex.as_str());
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.rest(Method::GET, path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}

#[tokio::test]
async fn all_that_is_read_has_a_path() {
    let world = World::new().await;
    let info = world.get("/v1/getinfo").await;
    assert_eq!(info["alias"], json!("alice"));
    assert_eq!(info["best_header_timestamp"], json!("1790000000"));
    let cases = [
        ("/v1/balance/blockchain", "total_balance", json!("2005000")),
        ("/v1/balance/channels", "balance", json!("600000")),
        ("/v1/channels/pending", "total_limbo_balance", json!("0")),
        (
            "/v1/invoices?reversed=true&num_max_invoices=500",
            "invoices",
            json!([]),
        ),
        (
            "/v1/payments?include_incomplete=true",
            "payments",
            json!([]),
        ),
        (
            "/v1/newaddress?type=WITNESS_PUBKEY_HASH",
            "address",
            json!(crate::testing::ADDRESS),
        ),
    ];
    for (path, field, expected) in cases {
        assert_eq!(world.get(path).await[field], expected, "{path}");
    }
    let channels = world.get("/v1/channels?active_only=true").await;
    assert_eq!(channels["channels"][0]["chan_id"], json!("113249697792001"));
    assert_eq!(
        world.get("/v1/channels/closed").await["channels"][0]["close_type"],
        json!("REMOTE_FORCE_CLOSE")
    );
    assert_eq!(
        world.get("/v1/transactions?end_height=-1").await["transactions"][0]["amount"],
        json!("2000000")
    );
    assert_eq!(
        world.get("/v2/wallet/accounts").await["accounts"][0]["name"],
        json!("default")
    );
    let hub = world
        .get(&format!("/v1/graph/node/{}", "02".repeat(33)))
        .await;
    assert_eq!(hub["node"]["alias"], json!("hub"));
}

#[tokio::test]
async fn an_invoice_is_made_and_looked_up() {
    let world = World::new().await;
    let body = json!({ "memo": "tea", "value_msat": "7000", "expiry": "600", "private": false, "is_amp": null });
    let made: Value = world
        .rest(Method::POST, "/v1/invoices", Some(body))
        .await
        .json()
        .await
        .unwrap();
    let hash = data_encoding::BASE64
        .decode(made["r_hash"].as_str().unwrap().as_bytes())
        .unwrap();
    let found = world
        .get(&format!(
            "/v1/invoice/{}",
            data_encoding::HEXLOWER.encode(&hash)
        ))
        .await;
    assert_eq!(
        (&found["memo"], &found["value_msat"], &found["state"]),
        (&json!("tea"), &json!("7000"), &json!("OPEN"))
    );
    world.node.receive(hash.clone().try_into().unwrap());
    // An invoice that is paid ends its stream with the first message.
    let path = format!(
        "/v2/invoices/subscribe/{}",
        data_encoding::BASE64URL.encode(&hash)
    );
    let line = world.get(&path).await;
    assert_eq!(line["result"]["state"], json!("SETTLED"));
    let decoded = world
        .get(&format!(
            "/v1/payreq/{}",
            made["payment_request"].as_str().unwrap()
        ))
        .await;
    assert_eq!(decoded["num_msat"], json!("7000"));
}

#[tokio::test]
async fn a_payment_is_a_line_for_each_state() {
    let world = World::new().await;
    let body = json!({
        "payment_request": FakeNode::foreign_invoice(5_000, now_unix_s()),
        "timeout_seconds": 60,
        "fee_limit_sat": "10",
        "allow_self_payment": true,
    });
    world.node.set_phone(Phone::Away);
    let away = world
        .rest(Method::POST, "/v2/router/send", Some(body.clone()))
        .await;
    assert_eq!(away.status(), 503);
    let away: Value = away.json().await.unwrap();
    assert_eq!(away["error"]["code"], json!(14));
    assert!(
        away["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("the owner's phone is away")
    );
    world.node.set_phone(Phone::Here);
    let paid = world
        .rest(Method::POST, "/v2/router/send", Some(body))
        .await;
    let text = paid.text().await.unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let states: Vec<&Value> = lines.iter().map(|it| &it["result"]["status"]).collect();
    assert_eq!(states, [&json!("IN_FLIGHT"), &json!("SUCCEEDED")]);
    assert_eq!(
        lines[1]["result"]["failure_reason"],
        json!("FAILURE_REASON_NONE")
    );
}

#[tokio::test]
async fn errors_have_the_form_of_the_gateway() {
    let world = World::new().await;
    let long = "x".repeat(crate::MOST_REQUEST_BYTES + 1);
    let cases = [
        (
            Method::GET,
            "/v1/graph",
            None,
            501,
            "GET /v1/graph is not answered by Longhand",
        ),
        (
            Method::POST,
            "/v1/channels",
            Some(json!({})),
            501,
            "POST /v1/channels is not answered",
        ),
        (
            Method::GET,
            "/v1/invoice/zz",
            None,
            400,
            "r_hash_str has to be 32 bytes as hex",
        ),
        (Method::GET, "/v1/invoice/%ff", None, 400, "UTF-8"),
        (Method::GET, "/v1/channels?peer=*", None, 400, "base64"),
        (
            Method::GET,
            "/v1/channels?active_only=1&active_only=1",
            None,
            400,
            "twice",
        ),
        (
            Method::POST,
            "/v1/invoices",
            Some(json!([1])),
            400,
            "no JSON object",
        ),
        (
            Method::POST,
            "/v1/invoices",
            Some(json!({ "memo": long })),
            400,
            "longer than 65536 bytes",
        ),
        (
            Method::GET,
            "/v1/payreq/lnbc1",
            None,
            400,
            "invalid invoice",
        ),
    ];
    for (method, path, body, status, part) in cases {
        let answer = world.rest(method, path, body).await;
        assert_eq!(answer.status(), status, "{path}");
        let answer: Value = answer.json().await.unwrap();
        assert!(
            answer["message"].as_str().unwrap().contains(part),
            "{answer}"
        );
        assert_eq!(answer["details"], json!([]));
    }
}

#[tokio::test]
async fn nobody_is_let_in_without_a_macaroon() {
    let world = World::new().await;
    for path in ["/v1/getinfo", "/v1/graph", "/v1/invoices/subscribe", "/"] {
        let answer = reqwest::get(format!("{}{path}", world.address))
            .await
            .unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        assert!(
            answer
                .text()
                .await
                .unwrap()
                .contains("expected 1 macaroon, got 0")
        );
    }
    let foreign = crate::testing::macaroon_of([9; 32], crate::testing::ALL, None).to_hex();
    let request = Client::new().get(format!("{}/v1/getinfo", world.address));
    let answer = request
        .header("Grpc-Metadata-Macaroon", foreign.as_str())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.text().await.unwrap().contains("verification failed"));
    let read = Client::new().post(format!("{}/v1/invoices", world.address));
    let answer = read
        .header("macaroon", read_only().to_hex().as_str())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn a_subscription_is_a_line_for_each_change() {
    let world = World::new().await;
    let subscribed = world.rest(Method::GET, "/v1/invoices/subscribe", None);
    // The reply begins with the first change.
    let making = async {
        while world.node.subscriptions() == 0 {
            tokio::task::yield_now().await;
        }
        let new = crate::node::NewInvoice::default();
        crate::Node::add_invoice(&*world.node, new).await.unwrap()
    };
    let (mut subscribed, made) = tokio::join!(subscribed, making);
    let line = subscribed.chunk().await.unwrap().unwrap();
    let line: Value = serde_json::from_slice(&line).unwrap();
    let hash = data_encoding::BASE64.encode(&made.payment_hash);
    assert_eq!(line["result"]["r_hash"], json!(hash));
    drop(subscribed);
    while world.node.subscriptions() != 0 {
        tokio::task::yield_now().await;
    }
}
