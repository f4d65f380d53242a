//! A hub and an owner with a channel, and invoices between them, for the tests of payments.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{
    Channel, CloseChannel, CreateInvoice, ListChannels, ListPayments, OpenChannel, Pay, Payment,
};
use std::time::Duration;

use crate::machine::input::{Input, InvoiceRequest};
use crate::machine::output::RequestId;
use crate::machine::testing::{Id, START_UNIX_S, World};

/// Longer than the difference between a test's clock and LDK's: LDK dates local invoices by the system's clock.
const LONG_EXPIRY_S: u32 = 10 * 365 * 86_400;

/// A hub, and an owner whose phone is attached.
pub(crate) struct Pair {
    pub world: World,
    pub hub: Id,
    pub owner: Id,
}

impl Pair {
    /// A channel of 500,000 sat, of which 100,000 are the owner's.
    pub fn new() -> Pair {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let owner = world.add_owner(2, Some(hub));
        world.fund(hub, 1_000_000);
        world.attach(owner);
        open(&mut world, hub, owner, 1, 100_000_000, false);
        Pair { world, hub, owner }
    }

    /// An invoice of the owner: the phone makes the preimage and signs.
    pub fn owner_invoice(&mut self, amount_msat: u64) -> String {
        self.owner_invoice_as(amount_msat, "tea", 3600)
    }

    /// The same, with this description, and for so many seconds.
    pub fn owner_invoice_as(
        &mut self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> String {
        let now = self.world.now.unix_s();
        let signer = self.world.nodes[self.owner].signer.as_mut().unwrap();
        let entropy = [u8::try_from(signer.payments().count()).unwrap() + 1; 32];
        let payment_hash = signer.new_payment(amount_msat, entropy, now).unwrap().value;
        let asked = longhand_signer::InvoiceRequest {
            payment_hash,
            amount_msat,
            description: description.into(),
            expiry_s,
        };
        let secret = signer.payment_secret(&asked).unwrap();
        let create = CreateInvoice {
            payment_hash: payment_hash.to_vec(),
            amount_msat,
            description: asked.description.clone(),
            expiry_s: asked.expiry_s,
            payment_secret: secret.to_vec(),
        };
        let reply = self.world.ask(self.owner, Kind::CreateInvoice(create));
        let Ok(Reply::UnsignedInvoice(unsigned)) = reply else {
            panic!("no invoice: {reply:?}");
        };
        let signer = self.world.nodes[self.owner].signer.as_mut().unwrap();
        let signed = signer.finish_invoice(&unsigned, &asked, now).unwrap();
        signed.value.to_string()
    }

    /// An invoice of the hub.
    pub fn hub_invoice(&mut self, amount_msat: u64) -> String {
        self.invoice_of(self.hub, amount_msat)
    }

    /// An invoice of a node with local keys.
    pub fn invoice_of(&mut self, id: Id, amount_msat: u64) -> String {
        let request = self.world.next_id();
        let invoice = InvoiceRequest {
            amount_msat,
            description: "tea".into(),
            expiry_s: LONG_EXPIRY_S,
        };
        let input = Input::Invoice(request, invoice);
        self.world.input(id, input);
        match self.world.answer(id, request) {
            Some(Ok(Reply::UnsignedInvoice(invoice))) => invoice.hrp,
            other => panic!("no invoice: {other:?}"),
        }
    }

    /// Begins to pay an invoice.
    pub fn pay(&mut self, id: Id, bolt11: &str) -> RequestId {
        self.world.begin(id, pay(bolt11))
    }

    /// The owner's phone goes away, and with it the owner's peers.
    pub fn phone_leaves(&mut self) {
        self.world.input(self.owner, Input::SignerLost);
    }

    /// The hub closes the channel by force.
    pub fn force_close(&mut self) {
        let close = CloseChannel {
            channel_id: self.channel(self.hub).channel_id,
            force: true,
            ..CloseChannel::default()
        };
        let closing = self.world.ask(self.hub, Kind::CloseChannel(close));
        assert!(
            matches!(closing, Ok(Reply::ClosingChannel(_))),
            "{closing:?}"
        );
    }

    pub fn channel(&mut self, id: Id) -> Channel {
        let Ok(Reply::Channels(list)) = self.world.ask(id, Kind::ListChannels(ListChannels {}))
        else {
            panic!("no list");
        };
        let [channel] = &list.channels[..] else {
            panic!("not one channel: {list:?}");
        };
        channel.clone()
    }

    /// The record of the payment of an invoice.
    pub fn payment(&mut self, id: Id, bolt11: &str) -> Option<Payment> {
        payment(&mut self.world, id, bolt11)
    }
}

/// A channel of 500,000 sat between two nodes, with six confirmations.
pub(crate) fn open(
    world: &mut World,
    from: Id,
    to: Id,
    number: u8,
    push_msat: u64,
    announced: bool,
) {
    // An owner comes by itself.
    let address = match world.nodes[to].config.is_hub {
        true => "peer:9735",
        false => "",
    };
    let open = OpenChannel {
        id: vec![number; 16],
        address: address.into(),
        counterparty_node_id: world.nodes[to].machine.node_id().serialize().to_vec(),
        amount_sat: 500_000,
        push_msat,
        feerate_sat_per_kw: 0,
        announced,
    };
    let opened = world.ask(from, Kind::OpenChannel(open));
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    world.mine(6);
}

pub(crate) fn pay(bolt11: &str) -> Kind {
    Kind::Pay(Pay {
        bolt11: bolt11.to_owned(),
        ..Pay::default()
    })
}

/// The record of the payment of an invoice.
pub(crate) fn payment(world: &mut World, id: Id, bolt11: &str) -> Option<Payment> {
    let hash = hash_of(bolt11).0;
    let Ok(Reply::Payments(list)) = world.ask(id, Kind::ListPayments(ListPayments::default()))
    else {
        panic!("no list");
    };
    let mut payments = list.payments.into_iter();
    payments.find(|payment| payment.payment_hash == hash)
}

pub(crate) fn hash_of(bolt11: &str) -> PaymentHash {
    bolt11.parse::<Bolt11Invoice>().unwrap().payment_hash()
}

/// An invoice of a node that nobody knows, made at `unix_s`, which expires after an hour.
pub(crate) fn stranger_invoice(
    currency: Currency,
    amount_msat: Option<u64>,
    unix_s: u64,
) -> String {
    let secret = SecretKey::from_slice(&[77; 32]).unwrap();
    let hash = sha256::Hash::hash(&[7; 32]).to_byte_array();
    let mut invoice = InvoiceBuilder::new(currency)
        .description("tea".into())
        .payment_hash(PaymentHash(hash))
        .payment_secret(PaymentSecret([8; 32]))
        .duration_since_epoch(Duration::from_secs(unix_s))
        .min_final_cltv_expiry_delta(144)
        .basic_mpp();
    if let Some(amount_msat) = amount_msat {
        invoice = invoice.amount_milli_satoshis(amount_msat);
    }
    let secp = Secp256k1::new();
    let signed = invoice.build_signed(|digest| secp.sign_ecdsa_recoverable(digest, &secret));
    signed.unwrap().to_string()
}

/// An invoice that can be paid, if there is a route.
pub(crate) fn payable() -> String {
    stranger_invoice(Currency::Regtest, Some(1_000_000), START_UNIX_S)
}
