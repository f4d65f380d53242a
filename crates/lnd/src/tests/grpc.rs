use super::*;
use crate::proto::invoicesrpc::SubscribeSingleInvoiceRequest;
use crate::proto::lnrpc::invoice::InvoiceState;
use crate::proto::lnrpc::payment::PaymentStatus;
use crate::proto::lnrpc::*;
use crate::proto::routerrpc::{SendPaymentRequest, TrackPaymentRequest};
use crate::proto::walletrpc::{ListAccountsRequest, ListAccountsResponse};
use crate::testing::{ADDRESS, Phone};

const SEND: &str = "routerrpc.Router/SendPaymentV2";

fn pay(amount_msat: u64) -> SendPaymentRequest {
    SendPaymentRequest {
        payment_request: FakeNode::foreign_invoice(amount_msat, now_unix_s()),
        timeout_seconds: 60,
        fee_limit_sat: 10,
        max_parts: 16,
        ..SendPaymentRequest::default()
    }
}

#[tokio::test]
async fn an_app_reads_node_channels_and_wallet() {
    let world = World::new().await;
    let info: GetInfoResponse = world
        .one("lnrpc.Lightning/GetInfo", GetInfoRequest {})
        .await
        .unwrap();
    assert_eq!(
        (&*info.alias, info.block_height, info.synced_to_chain),
        ("alice", 106, true)
    );
    assert!(info.version.starts_with("0.21.2-beta commit=longhand-"));
    assert_eq!(
        (&*info.chains[0].chain, &*info.chains[0].network),
        ("bitcoin", "regtest")
    );
    assert_eq!(info.identity_pubkey.len(), 66);
    let balance: ChannelBalanceResponse = world
        .one("lnrpc.Lightning/ChannelBalance", ChannelBalanceRequest {})
        .await
        .unwrap();
    assert_eq!(
        (balance.balance, balance.local_balance.unwrap().msat),
        (600_000, 600_000_500)
    );
    let wallet: WalletBalanceResponse = world
        .one(
            "lnrpc.Lightning/WalletBalance",
            WalletBalanceRequest::default(),
        )
        .await
        .unwrap();
    assert_eq!(
        (wallet.total_balance, wallet.confirmed_balance),
        (2_005_000, 2_000_000)
    );
    assert_eq!(wallet.account_balance["default"].unconfirmed_balance, 5_000);
    let list = ListChannelsRequest::default();
    let channels: ListChannelsResponse = world
        .one("lnrpc.Lightning/ListChannels", list)
        .await
        .unwrap();
    assert_eq!(channels.channels.len(), 1);
    let channel = &channels.channels[0];
    assert!(channel.active && channel.private && channel.pending_htlcs[0].incoming);
    assert_eq!(
        (channel.capacity, channel.local_balance),
        (1_000_000, 600_000)
    );
    let none = ListChannelsRequest {
        inactive_only: true,
        ..ListChannelsRequest::default()
    };
    let channels: ListChannelsResponse = world
        .one("lnrpc.Lightning/ListChannels", none)
        .await
        .unwrap();
    assert!(channels.channels.is_empty());
    let pending: PendingChannelsResponse = world
        .one("lnrpc.Lightning/PendingChannels", PendingChannelsRequest {})
        .await
        .unwrap();
    assert_eq!(pending.pending_open_channels.len(), 1);
    let force = ClosedChannelsRequest {
        remote_force: true,
        ..ClosedChannelsRequest::default()
    };
    let closed: ClosedChannelsResponse = world
        .one("lnrpc.Lightning/ClosedChannels", force)
        .await
        .unwrap();
    assert_eq!(
        closed.channels[0].close_type,
        channel_close_summary::ClosureType::RemoteForceClose as i32
    );
    let accounts: ListAccountsResponse = world
        .one(
            "walletrpc.WalletKit/ListAccounts",
            ListAccountsRequest::default(),
        )
        .await
        .unwrap();
    assert_eq!(&*accounts.accounts[0].derivation_path, "m/84'/1'/0'");
    let hub = NodeInfoRequest {
        pub_key: "02".repeat(33),
        include_channels: false,
    };
    let hub: NodeInfo = world.one("lnrpc.Lightning/GetNodeInfo", hub).await.unwrap();
    assert_eq!(&*hub.node.unwrap().alias, "hub");
}

#[tokio::test]
async fn an_invoice_is_made_seen_and_paid() {
    let world = World::new().await;
    let mut told = world
        .many::<_, Invoice>(
            "lnrpc.Lightning/SubscribeInvoices",
            InvoiceSubscription::default(),
        )
        .await
        .unwrap();
    let new = Invoice {
        memo: "tea".into(),
        value_msat: 5_000_000,
        expiry: 600,
        private: true,
        ..Invoice::default()
    };
    let made: AddInvoiceResponse = world.one("lnrpc.Lightning/AddInvoice", new).await.unwrap();
    assert_eq!((made.r_hash.len(), made.payment_addr.len()), (32, 32));
    let seen = told.next().await.unwrap().unwrap();
    assert_eq!((&*seen.memo, seen.add_index), ("tea", made.add_index));
    let one = SubscribeSingleInvoiceRequest {
        r_hash: made.r_hash.clone(),
    };
    let states: Streaming<Invoice> = world
        .many("invoicesrpc.Invoices/SubscribeSingleInvoice", one)
        .await
        .unwrap();
    world.node.receive(made.r_hash.clone().try_into().unwrap());
    let (states, error) = all(states).await;
    assert!(error.is_none());
    let states: Vec<i32> = states.iter().map(|it| it.state).collect();
    // Paid before or after the first look.
    assert_eq!(
        states.last(),
        Some(&(InvoiceState::Settled as i32)),
        "{states:?}"
    );
    let paid = told.next().await.unwrap().unwrap();
    assert_eq!(
        (paid.settled, paid.amt_paid_sat, paid.r_preimage.len()),
        (true, 5_000, 32)
    );
    let by_hex = PaymentHash {
        r_hash_str: paid.r_hash.iter().map(|it| format!("{it:02x}")).collect(),
        ..PaymentHash::default()
    };
    let found: Invoice = world
        .one("lnrpc.Lightning/LookupInvoice", by_hex)
        .await
        .unwrap();
    assert_eq!(found, paid);
    assert_eq!(
        (found.value, found.expiry, &*found.payment_request),
        (5_000, 600, &*made.payment_request)
    );
    let unknown = PaymentHash {
        r_hash: vec![0; 32],
        ..PaymentHash::default()
    };
    let unknown = world
        .one::<_, Invoice>("lnrpc.Lightning/LookupInvoice", unknown)
        .await;
    refused(unknown, Code::NotFound, "unable to locate invoice");
}

#[tokio::test]
async fn an_invoice_is_paid_once_by_the_phone() {
    let world = World::new().await;
    let asked = pay(20_000_000);
    let text = asked.payment_request.clone();
    let decoded: PayReq = world
        .one(
            "lnrpc.Lightning/DecodePayReq",
            PayReqString { pay_req: text },
        )
        .await
        .unwrap();
    assert_eq!(
        (decoded.num_satoshis, &*decoded.description),
        (20_000, "coffee")
    );
    assert_eq!(
        (
            decoded.cltv_expiry,
            decoded.expiry,
            decoded.payment_addr.len()
        ),
        (144, 3_600, 32)
    );
    assert!(decoded.features[&17].is_known);
    let (states, error) = all::<Payment>(world.many(SEND, asked.clone()).await.unwrap()).await;
    assert!(error.is_none());
    let statuses: Vec<i32> = states.iter().map(|it| it.status).collect();
    assert_eq!(
        statuses,
        [
            PaymentStatus::InFlight as i32,
            PaymentStatus::Succeeded as i32
        ]
    );
    let paid = &states[1];
    assert_eq!((paid.value_sat, paid.fee_msat), (20_000, 1_000));
    assert_eq!(paid.payment_hash, decoded.payment_hash);
    let again = world.many::<_, Payment>(SEND, asked).await;
    refused(again, Code::AlreadyExists, "invoice is already paid");
    let track = TrackPaymentRequest {
        payment_hash: data_encoding::HEXLOWER
            .decode(paid.payment_hash.as_bytes())
            .unwrap(),
        ..TrackPaymentRequest::default()
    };
    let tracked = world
        .many("routerrpc.Router/TrackPaymentV2", track)
        .await
        .unwrap();
    assert_eq!(all::<Payment>(tracked).await.0, states[1..]);
}

#[tokio::test]
async fn without_the_phone_nothing_is_spent_and_the_reason_is_given() {
    let world = World::new().await;
    for (phone, code, part) in [
        (
            Phone::Away,
            Code::Unavailable,
            "the owner's phone is away: open Longhand",
        ),
        (
            Phone::Refuses,
            Code::PermissionDenied,
            "the owner's phone refused: ",
        ),
    ] {
        world.node.set_phone(phone);
        let payment = world.many::<_, Payment>(SEND, pay(1_000)).await;
        refused(payment, code, part);
        let coins = SendCoinsRequest {
            addr: ADDRESS.into(),
            amount: 1_000,
            ..SendCoinsRequest::default()
        };
        refused(
            world
                .one::<_, SendCoinsResponse>("lnrpc.Lightning/SendCoins", coins)
                .await,
            code,
            part,
        );
        let invoice =
            world.one::<_, AddInvoiceResponse>("lnrpc.Lightning/AddInvoice", Invoice::default());
        refused(invoice.await, code, part);
        // Reading goes on.
        world
            .one::<_, GetInfoResponse>("lnrpc.Lightning/GetInfo", GetInfoRequest {})
            .await
            .unwrap();
    }
    let list = ListPaymentsRequest {
        include_incomplete: true,
        ..ListPaymentsRequest::default()
    };
    let payments: ListPaymentsResponse = world
        .one("lnrpc.Lightning/ListPayments", list)
        .await
        .unwrap();
    assert!(payments.payments.is_empty());
}

#[tokio::test]
async fn limits_that_cannot_be_kept_are_refused() {
    let world = World::new().await;
    type Change = fn(&mut SendPaymentRequest);
    let cases: [(Change, &str); 11] = [
        (|it| it.outgoing_chan_ids = vec![1], "outgoing_chan_ids"),
        (|it| it.last_hop_pubkey = vec![2; 33], "last_hop_pubkey"),
        (|it| it.cltv_limit = 1, "cltv_limit"),
        (|it| it.max_shard_size_msat = 1, "max_shard_size_msat"),
        (|it| it.amp = true, "amp"),
        (|it| it.dest = vec![2; 33], "dest"),
        (|it| it.payment_request.clear(), "without an invoice"),
        (|it| it.payment_request = "lnbc1".into(), "invalid invoice"),
        (|it| it.amt = 5, "amount must not be specified"),
        (|it| it.fee_limit_sat = -1, "fee_limit"),
        (|it| it.timeout_seconds = -1, "timeout_seconds"),
    ];
    for (change, part) in cases {
        let mut asked = pay(1_000);
        change(&mut asked);
        refused(
            world.many::<_, Payment>(SEND, asked).await,
            Code::InvalidArgument,
            part,
        );
    }
    refused(
        world.many::<_, Payment>(SEND, pay(0)).await,
        Code::InvalidArgument,
        "amount must be",
    );
    let old = SendPaymentRequest {
        payment_request: FakeNode::foreign_invoice(1_000, 1_500_000_000),
        ..pay(1_000)
    };
    refused(
        world.many::<_, Payment>(SEND, old).await,
        Code::InvalidArgument,
        "invoice expired",
    );
    let both = SendPaymentRequest {
        amt: 1,
        amt_msat: 1,
        ..pay(0)
    };
    refused(
        world.many::<_, Payment>(SEND, both).await,
        Code::InvalidArgument,
        "mutually exclusive",
    );
    let mainnet = SendPaymentRequest {
        payment_request: BOLT11_OF_MAINNET.into(),
        ..pay(1_000)
    };
    refused(
        world.many::<_, Payment>(SEND, mainnet).await,
        Code::InvalidArgument,
        "network, regtest",
    );
}

/// BOLT 11's first example.
const BOLT11_OF_MAINNET: &str = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";

#[tokio::test]
async fn invoices_and_addresses_that_cannot_be_made_are_refused() {
    let world = World::new().await;
    type Change = fn(&mut Invoice);
    let cases: [(Change, &str); 8] = [
        (|it| it.r_preimage = vec![1; 32], "r_preimage"),
        (|it| it.description_hash = vec![1; 32], "description_hash"),
        (|it| it.memo = "x".repeat(640), "memo too large"),
        (|it| it.expiry = 31_536_001, "expiry"),
        (|it| it.expiry = -1, "expiry"),
        (|it| it.value = -1, "below 0"),
        (
            |it| (it.value, it.value_msat) = (1, 1),
            "mutually exclusive",
        ),
        (|it| it.is_amp = true, "is_amp"),
    ];
    for (change, part) in cases {
        let mut asked = Invoice::default();
        change(&mut asked);
        let answer = world
            .one::<_, AddInvoiceResponse>("lnrpc.Lightning/AddInvoice", asked)
            .await;
        refused(answer, Code::InvalidArgument, part);
    }
    for kind in [1, 3, 4, 99] {
        let asked = NewAddressRequest {
            r#type: kind,
            ..NewAddressRequest::default()
        };
        let answer = world
            .one::<_, NewAddressResponse>("lnrpc.Lightning/NewAddress", asked)
            .await;
        assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
    }
    let asked = NewAddressRequest::default();
    let made: NewAddressResponse = world
        .one("lnrpc.Lightning/NewAddress", asked)
        .await
        .unwrap();
    assert_eq!(made.address, ADDRESS);
}

#[tokio::test]
async fn coins_are_sent_and_seen() {
    let world = World::new().await;
    let mut told: Streaming<Transaction> = world
        .many(
            "lnrpc.Lightning/SubscribeTransactions",
            GetTransactionsRequest::default(),
        )
        .await
        .unwrap();
    let coins = SendCoinsRequest {
        addr: ADDRESS.into(),
        amount: 50_000,
        sat_per_vbyte: 2,
        spend_unconfirmed: true,
        ..SendCoinsRequest::default()
    };
    let sent: SendCoinsResponse = world
        .one("lnrpc.Lightning/SendCoins", coins.clone())
        .await
        .unwrap();
    let seen = told.next().await.unwrap().unwrap();
    assert_eq!((seen.tx_hash, seen.amount), (sent.txid.clone(), -50_000));
    let list = |start_height, end_height| GetTransactionsRequest {
        start_height,
        end_height,
        ..GetTransactionsRequest::default()
    };
    for (start, end, expected) in [
        (0, 0, 2),
        (0, -1, 2),
        (0, 101, 1),
        (102, -1, 1),
        (102, 200, 0),
    ] {
        let list: TransactionDetails = world
            .one("lnrpc.Lightning/GetTransactions", list(start, end))
            .await
            .unwrap();
        assert_eq!(list.transactions.len(), expected, "{start} to {end}");
    }
    type Change = fn(&mut SendCoinsRequest);
    let cases: [Change; 6] = [
        |it| it.amount = 0,
        |it| it.amount = -1,
        |it| it.send_all = true,
        |it| it.target_conf = 6,
        |it| it.sat_per_byte = 1,
        |it| it.outpoints = vec![OutPoint::default()],
    ];
    for change in cases {
        let mut asked = coins.clone();
        change(&mut asked);
        let answer = world
            .one::<_, SendCoinsResponse>("lnrpc.Lightning/SendCoins", asked)
            .await;
        assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn each_call_needs_its_permission() {
    let world = World::new().await;
    for name in ["AddInvoice", "NewAddress", "SendCoins"] {
        let name = format!("lnrpc.Lightning/{name}");
        // An empty message is one of any type.
        let answer = world.one_as::<(), ()>(&read_only(), &name, ()).await;
        refused(
            answer,
            Code::PermissionDenied,
            "permission denied: the macaroon does not allow",
        );
    }
    let answer = world.one_as::<(), ()>(&read_only(), SEND, ()).await;
    refused(answer, Code::PermissionDenied, "offchain:write");
    world
        .one_as::<_, GetInfoResponse>(&read_only(), "lnrpc.Lightning/GetInfo", ())
        .await
        .unwrap();
    let expired = macaroon(crate::testing::ALL, Some(1));
    let answer = world
        .one_as::<_, ()>(&expired, "lnrpc.Lightning/GetInfo", ())
        .await;
    refused(answer, Code::Unauthenticated, "macaroon has expired");
}

#[tokio::test]
async fn other_calls_are_named_to_those_who_may_call() {
    let world = World::new().await;
    let open = "lnrpc.Lightning/OpenChannel";
    let answer = world.one::<(), ()>(open, ()).await;
    refused(
        answer,
        Code::Unimplemented,
        "lnrpc.Lightning/OpenChannel is not answered by Longhand",
    );
    let answer = world.one::<(), ()>("signrpc.Signer/SignMessage", ()).await;
    refused(
        answer,
        Code::Unimplemented,
        "signrpc.Signer/SignMessage is not answered",
    );
    let foreign = crate::testing::macaroon_of([9; 32], crate::testing::ALL, None);
    let answer = world.one_as::<(), ()>(&foreign, open, ()).await;
    refused(answer, Code::Unauthenticated, "verification failed");
}

#[tokio::test]
async fn a_long_request_is_refused() {
    let world = World::new().await;
    let asked = PayReqString {
        pay_req: "l".repeat(crate::MOST_REQUEST_BYTES),
    };
    let answer = world
        .one::<_, PayReq>("lnrpc.Lightning/DecodePayReq", asked)
        .await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn an_app_that_is_disconnected_is_out_at_once() {
    let world = World::new().await;
    let mut told = world
        .many::<_, Invoice>(
            "lnrpc.Lightning/SubscribeInvoices",
            InvoiceSubscription::default(),
        )
        .await
        .unwrap();
    world
        .one::<_, AddInvoiceResponse>("lnrpc.Lightning/AddInvoice", Invoice::default())
        .await
        .unwrap();
    told.next().await.unwrap().unwrap();
    world.app.disconnect();
    let answer = world
        .one::<_, GetInfoResponse>("lnrpc.Lightning/GetInfo", GetInfoRequest {})
        .await;
    refused(answer, Code::Unauthenticated, "not connected any more");
    crate::Node::add_invoice(&*world.node, crate::node::NewInvoice::default())
        .await
        .unwrap();
    assert_eq!(
        told.next().await.unwrap().unwrap_err().code(),
        Code::Unauthenticated
    );
    assert!(told.next().await.is_none());
}

/// Returns when the phone has so many questions open.
async fn questions(world: &World, count: usize) {
    while world.node.questions() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_question_is_withdrawn_when_its_app_goes() {
    let world = World::new().await;
    world.node.set_phone(Phone::Silent);
    let asked = pay(1_000);
    tokio::select! {
        _ = world.many::<_, Payment>(SEND, asked.clone()) => panic!("nobody has answered"),
        () = questions(&world, 1) => {}
    }
    questions(&world, 0).await;
    world.node.set_phone(Phone::Here);
    let list = ListPaymentsRequest {
        include_incomplete: true,
        ..ListPaymentsRequest::default()
    };
    let payments: ListPaymentsResponse = world
        .one("lnrpc.Lightning/ListPayments", list)
        .await
        .unwrap();
    assert!(payments.payments.is_empty());
    let paid = world.many::<_, Payment>(SEND, asked).await.unwrap();
    assert_eq!(all(paid).await.0.len(), 2);
}

#[tokio::test]
async fn one_that_waits_for_the_phone_does_not_keep_others_from_reading() {
    let world = World::new().await;
    world.node.set_phone(Phone::Silent);
    let invoice =
        world.one::<_, AddInvoiceResponse>("lnrpc.Lightning/AddInvoice", Invoice::default());
    let reading = async {
        questions(&world, 1).await;
        world
            .one::<_, GetInfoResponse>("lnrpc.Lightning/GetInfo", GetInfoRequest {})
            .await
            .unwrap();
        world.node.set_phone(Phone::Here);
    };
    let (made, ()) = tokio::join!(invoice, reading);
    made.unwrap();
}
