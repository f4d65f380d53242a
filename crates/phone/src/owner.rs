//! The owner's commands. The phone checks all that it can before anything is sent, and the intent of the owner is in the ledger before
//! a command is sent to the host.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bitcoin::Address;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::PublicKey;
use longhand_base::text::plain;
use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_signer::{ChannelIntent, InvoiceRequest, Keychain, Recorded};
use zeroize::Zeroizing;

use crate::approval::Wish;
use crate::command::*;
use crate::durable_signer::{DurableSigner, blocking};
use crate::error::PhoneError;
use crate::idempotency::Outcome;
use crate::input::{
    InputError, OnchainAmount, PeerAddress, check_app_name, check_channel, check_channel_id,
    check_close, check_cursor, check_feerate, check_invoice_request, check_onchain,
    check_payment_hash, check_txid, check_wake_urls,
};
use crate::phone::{PATIENCE, Phone, expect_reply};
use crate::vault::fill_random;

/// The time for which a cooperative close is awaited, and the interval of asking.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_PAUSE: Duration = Duration::from_millis(50);

/// The interval at which [`Phone::wait_until`] asks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The most payments that are read in one call.
const MOST_PAYMENTS: usize = 1_000_000;

/// The fee limit of an on-chain transaction, or [`ONCHAIN_FEE_PERCENT`] of its amount if that is more.
pub(crate) const ONCHAIN_FEE_SAT: u64 = 20_000;
pub(crate) const ONCHAIN_FEE_PERCENT: u64 = 5;
/// Or the fee of a transaction of this weight, in units of 1,000, at the fee rate that the owner gave.
pub(crate) const ONCHAIN_FEE_KW: u64 = 10;

/// The fee limit of a transaction that pays `amount_sat` at the owner's fee rate, or the node's.
fn max_onchain_fee_sat(amount_sat: u64, feerate_sat_per_kw: Option<u32>) -> u64 {
    ONCHAIN_FEE_SAT
        .max(amount_sat / 100 * ONCHAIN_FEE_PERCENT)
        .max(ONCHAIN_FEE_KW * u64::from(feerate_sat_per_kw.unwrap_or(0)))
}

/// Adds the invoice of an incoming payment, which the phone has.
fn complete(payment: &mut Payment, own: &HashMap<String, String>) {
    if let Some(bolt11) = own.get(&payment.payment_hash).filter(|_| !payment.outbound) {
        payment.bolt11.clone_from(bolt11);
    }
}

impl Phone {
    /// Carries out any command, for the command line and the control socket.
    pub async fn execute(&self, command: OwnerCommand) -> Result<OwnerReply, PhoneError> {
        let outcome = self.carry_out(command).await;
        self.deliver(outcome).await
    }

    /// The same, without recording that the result was delivered: the caller does so by [`Phone::delivered`].
    pub(crate) async fn carry_out(&self, command: OwnerCommand) -> Outcome<OwnerReply> {
        use OwnerCommand as C;
        match command {
            C::Info => self.info().await.map(OwnerReply::Info).into(),
            C::Balance => self.balance().await.map(OwnerReply::Balance).into(),
            C::Address => self.address().await.map(OwnerReply::Address).into(),
            C::Open {
                amount_sat,
                to,
                announced,
                wait,
                feerate_sat_per_kw,
            } => {
                let open = self.open_once(amount_sat, to, announced, wait, feerate_sat_per_kw);
                let opened = open.await;
                opened.map(OwnerReply::Opened)
            }
            C::Invoice {
                amount_msat,
                description,
                expiry_s,
            } => {
                let invoice = self.invoice(amount_msat, &description, expiry_s).await;
                invoice.map(OwnerReply::Invoice).into()
            }
            C::Pay {
                bolt11,
                amount_msat,
                max_fee_msat,
            } => {
                let paid = self.pay(&bolt11, amount_msat, max_fee_msat).await;
                paid.map(OwnerReply::Paid).into()
            }
            C::SendOnchain {
                address,
                amount,
                feerate_sat_per_kw,
            } => {
                let sent = self.send_once(&address, amount, feerate_sat_per_kw).await;
                sent.map(OwnerReply::Sent)
            }
            C::Channels => self.channels().await.map(OwnerReply::Channels).into(),
            C::Payments { limit, before } => {
                let page = self.payments_page(limit, before.as_deref()).await;
                page.map(OwnerReply::Payments).into()
            }
            C::Payment { payment_hash } => {
                let payment = self.payment(&payment_hash).await;
                payment.map(OwnerReply::Payment).into()
            }
            C::Invoices => self.invoices().await.map(OwnerReply::Invoices).into(),
            C::Sends => self.sends().await.map(OwnerReply::Sends).into(),
            C::Bump {
                txid,
                feerate_sat_per_kw,
            } => {
                let bumped = self.bump(&txid, feerate_sat_per_kw).await;
                bumped.map(OwnerReply::Sent).into()
            }
            C::Abandon {
                txid,
                feerate_sat_per_kw,
            } => {
                let abandoned = self.abandon(&txid, feerate_sat_per_kw).await;
                abandoned.map(OwnerReply::Sent).into()
            }
            C::Close { channel_id, how } => {
                let closing = self.close_as(&channel_id, how).await;
                closing.map(OwnerReply::Closing).into()
            }
            C::Connect { to } => {
                let connected = self.connect_peer(to).await;
                connected.map(|()| OwnerReply::Connected {}).into()
            }
            C::Limits => self.limits().await.map(OwnerReply::Limits).into(),
            C::SetLimit { name, value } => {
                let set = self.set_limit(name, value).await;
                set.map(OwnerReply::Limits).into()
            }
            C::Refusals => self.refusals().await.map(OwnerReply::Refusals).into(),
            C::Chain => self.chain().await.map(OwnerReply::Chain).into(),
            C::ConnectApp {
                name,
                rights,
                expires_unix_s,
            } => {
                let connected = self.connect_app(&name, rights, expires_unix_s).await;
                connected.map(OwnerReply::ConnectedApp).into()
            }
            C::Apps => self.apps().await.map(OwnerReply::Apps).into(),
            C::DisconnectApp { name } => {
                let left = self.disconnect_app(&name).await;
                left.map(OwnerReply::Apps).into()
            }
            C::WakeUrls => self.wake_urls().await.map(OwnerReply::WakeUrls).into(),
            C::SetWakeUrls { urls } => {
                let set = self.set_wake_urls(urls).await;
                set.map(OwnerReply::WakeUrls).into()
            }
        }
    }

    /// Checks a command as [`Phone::execute`] does before it sends anything. Needs no link.
    pub fn check(&self, command: &OwnerCommand) -> Result<(), PhoneError> {
        use OwnerCommand as C;
        match command {
            C::Open {
                amount_sat,
                feerate_sat_per_kw,
                ..
            } => {
                check_channel(*amount_sat)?;
                check_feerate(*feerate_sat_per_kw)?;
            }
            C::Invoice {
                amount_msat,
                description,
                expiry_s,
            } => {
                check_invoice_request(*amount_msat, description, *expiry_s)?;
            }
            C::Pay {
                bolt11,
                amount_msat,
                max_fee_msat,
            } => {
                self.check_payment(bolt11, *amount_msat, *max_fee_msat)?;
            }
            C::SendOnchain {
                address,
                amount,
                feerate_sat_per_kw,
            } => {
                check_feerate(*feerate_sat_per_kw)?;
                check_onchain(address, *amount, self.network())?;
            }
            C::Bump {
                txid,
                feerate_sat_per_kw,
            }
            | C::Abandon {
                txid,
                feerate_sat_per_kw,
            } => {
                check_txid(txid)?;
                check_feerate(*feerate_sat_per_kw)?;
            }
            C::Close { channel_id, how } => {
                check_channel_id(channel_id)?;
                check_close(how.clone(), self.network())?;
            }
            C::Payments { before, .. } => {
                before.as_deref().map(check_cursor).transpose()?;
            }
            C::Payment { payment_hash } => {
                check_payment_hash(payment_hash)?;
            }
            C::SetWakeUrls { urls } => check_wake_urls(urls)?,
            C::ConnectApp { name, .. } | C::DisconnectApp { name } => check_app_name(name)?,
            C::Info
            | C::Balance
            | C::Address
            | C::Channels
            | C::Invoices
            | C::Sends
            | C::Limits
            | C::SetLimit { .. }
            | C::Refusals
            | C::Chain
            | C::WakeUrls
            | C::Apps
            | C::Connect { .. } => {}
        }
        Ok(())
    }

    /// The node's state. Fails with [`PhoneError::Foreign`] when the host runs another node for this phone.
    pub async fn info(&self) -> Result<Info, PhoneError> {
        let info = expect_reply!(self.command(Ask::GetInfo(proto::GetInfo {})).await?, Info)?;
        if info.node_id != self.inner.node_id.serialize() {
            return Err(PhoneError::Foreign("a node id"));
        }
        Ok(info.into())
    }

    /// The owner's balance.
    pub async fn balance(&self) -> Result<Balance, PhoneError> {
        let reply = self.command(Ask::GetBalance(proto::GetBalance {})).await?;
        Ok(expect_reply!(reply, Balance)?.into())
    }

    /// Returns the first balance that `is_met` accepts, such as one with coins or with inbound capacity. Asks again and again.
    pub async fn wait_until(
        &self,
        is_met: impl Fn(&Balance) -> bool,
    ) -> Result<Balance, PhoneError> {
        loop {
            let balance = self.balance().await?;
            if is_met(&balance) {
                return Ok(balance);
            }
            self.inner.runtime.sleep(LOOK_PAUSE).await;
        }
    }

    /// A new address, which the phone has derived itself. Fails with [`PhoneError::Foreign`] when the host's is another,
    /// or one for change, where a restored wallet may not look for payments of others.
    pub async fn address(&self) -> Result<OwnAddress, PhoneError> {
        let reply = self.command(Ask::NewAddress(proto::NewAddress {})).await?;
        let given = expect_reply!(reply, Address)?;
        let own = match Keychain::try_from(given.keychain) {
            Ok(Keychain::External) => {
                self.look(move |signer| signer.own_script(Keychain::External, given.index))
                    .await?
            }
            _ => None,
        };
        let own = own.and_then(|script| Address::from_script(&script, self.network()).ok());
        match own {
            Some(own) if own.to_string() == given.address => Ok(OwnAddress {
                address: given.address,
                index: given.index,
            }),
            _ => Err(PhoneError::Foreign("an address")),
        }
    }

    /// Opens a channel of `amount_sat` to a peer, or to the host's hub. Returns when it is funded; with `wait`, when
    /// it is usable. `feerate_sat_per_kw` is for its funding; the host's estimate without one.
    ///
    /// Idempotent until its final result is returned: a call with the same peer, amount and `announced` is for the same channel. After
    /// that it is for another one. An error that leaves the result open, such as [`PhoneError::HostAway`], is not final.
    pub async fn open(
        &self,
        amount_sat: u64,
        to: Option<PeerAddress>,
        announced: bool,
        wait: bool,
        feerate_sat_per_kw: Option<u32>,
    ) -> Result<OpenedChannel, PhoneError> {
        let open = self.open_once(amount_sat, to, announced, wait, feerate_sat_per_kw);
        self.deliver(open.await).await
    }

    async fn open_once(
        &self,
        amount_sat: u64,
        to: Option<PeerAddress>,
        announced: bool,
        wait: bool,
        feerate_sat_per_kw: Option<u32>,
    ) -> Outcome<OpenedChannel> {
        let intend = async {
            check_channel(amount_sat)?;
            check_feerate(feerate_sat_per_kw)?;
            let (counterparty, address) = match to {
                Some(peer) => (peer.node_id, peer.address),
                None => (self.hub().await?, String::new()),
            };
            let max_fee_sat = max_onchain_fee_sat(amount_sat, feerate_sat_per_kw);
            let wish = Wish::Open {
                peer: counterparty,
                amount_sat,
                announced,
            };
            self.approved(wish).await?;
            let id = self.intend_open(counterparty, amount_sat, announced, max_fee_sat);
            Ok(proto::OpenChannel {
                id: id.await?,
                counterparty_node_id: counterparty.serialize().to_vec(),
                address,
                amount_sat,
                announced,
                push_msat: 0,
                feerate_sat_per_kw: feerate_sat_per_kw.unwrap_or(0),
            })
        };
        match intend.await {
            Ok(open) => Outcome::of(open.id.clone(), self.await_channel(open, wait).await),
            Err(error) => Err(error).into(),
        }
    }

    async fn await_channel(
        &self,
        open: proto::OpenChannel,
        wait: bool,
    ) -> Result<OpenedChannel, PhoneError> {
        let id = open.id.clone();
        let opened = expect_reply!(self.command(Ask::OpenChannel(open)).await?, OpenedChannel)?;
        let mut opened = OpenedChannel {
            channel_id: opened.channel_id.to_lower_hex_string(),
            funding_outpoint: plain(&opened.funding_outpoint),
            usable: false,
        };
        if wait {
            let awaited = self
                .ask(Ask::AwaitChannel(proto::AwaitChannel { id }), None)
                .await?;
            let channel = expect_reply!(awaited, Channel)?;
            opened.channel_id = channel.channel_id.to_lower_hex_string();
            opened.funding_outpoint = plain(&channel.funding_outpoint);
            opened.usable = channel.usable;
        }
        Ok(opened)
    }

    /// Makes an invoice over `amount_msat`, or over any amount where the limits allow it (`any_amount_sat`). Its preimage is made here and stays here until it is paid.
    pub async fn invoice(
        &self,
        amount_msat: Option<u64>,
        description: &str,
        expiry_s: u32,
    ) -> Result<Invoice, PhoneError> {
        check_invoice_request(amount_msat, description, expiry_s)?;
        let amount_msat = amount_msat.unwrap_or(0);
        let mut entropy = Zeroizing::new([0; 32]);
        fill_random(entropy.as_mut_slice()).map_err(crate::vault::VaultError::from)?;
        let now = self.now_unix_s();
        let payment_hash = self
            .call(move |signer| signer.new_payment(amount_msat, *entropy, now))
            .await?;
        let asked = InvoiceRequest {
            payment_hash,
            amount_msat,
            description: description.to_owned(),
            expiry_s,
        };
        let request = asked.clone();
        let secret = self.look(move |signer| signer.payment_secret(&request));
        let create = proto::CreateInvoice {
            payment_hash: payment_hash.to_vec(),
            amount_msat,
            description: description.to_owned(),
            expiry_s,
            payment_secret: secret.await?.map_or_else(Vec::new, |it| it.to_vec()),
        };
        let reply = self.command(Ask::CreateInvoice(create)).await?;
        let unsigned = expect_reply!(reply, UnsignedInvoice)?;
        let sign = move |signer: &DurableSigner| signer.sign_invoice(&unsigned, &asked);
        let invoice = blocking(&self.inner.signer, sign).await?;
        Ok(Invoice {
            bolt11: invoice.to_string(),
            payment_hash: payment_hash.to_lower_hex_string(),
            amount_msat,
            expires_unix_s: invoice
                .duration_since_epoch()
                .saturating_add(invoice.expiry_time())
                .as_secs(),
        })
    }

    /// Sends from the on-chain wallet.
    ///
    /// Idempotent until its final result is returned: a call with the same address and amount is for the same payment, at the first fee
    /// rate when the node knows it. After that it is for another one. An error that leaves the result open, such as
    /// [`PhoneError::HostAway`], is not final.
    pub async fn send_onchain(
        &self,
        address: &str,
        amount: OnchainAmount,
        feerate_sat_per_kw: Option<u32>,
    ) -> Result<SentOnchain, PhoneError> {
        let outcome = self.send_once(address, amount, feerate_sat_per_kw).await;
        self.deliver(outcome).await
    }

    async fn send_once(
        &self,
        address: &str,
        amount: OnchainAmount,
        feerate_sat_per_kw: Option<u32>,
    ) -> Outcome<SentOnchain> {
        let intend = async {
            let address = check_onchain(address, amount, self.network())?.to_string();
            let (amount_sat, all) = match amount {
                OnchainAmount::Sat(sat) => (sat, false),
                OnchainAmount::All => (0, true),
            };
            check_feerate(feerate_sat_per_kw)?;
            let max_fee_sat = max_onchain_fee_sat(amount_sat, feerate_sat_per_kw);
            let feerate_sat_per_kw = feerate_sat_per_kw.unwrap_or(0);
            let wish = Wish::SendOnchain {
                address: address.clone(),
                amount_sat,
                max_fee_sat,
            };
            self.approved(wish).await?;
            let id = self.intend_send(&address, amount_sat, max_fee_sat).await?;
            Ok(proto::SendOnchain {
                id,
                address,
                amount_sat,
                all,
                feerate_sat_per_kw,
            })
        };
        let send = match intend.await {
            Ok(send) => send,
            Err(error) => return Err(error).into(),
        };
        let id = send.id.clone();
        let answer = self.command(Ask::SendOnchain(send)).await;
        let sent = answer.and_then(|reply| expect_reply!(reply, SentOnchain));
        Outcome::of(id, sent).map(|sent| SentOnchain {
            txid: plain(&sent.txid),
            fee_sat: sent.fee_sat,
        })
    }

    /// All channels.
    pub async fn channels(&self) -> Result<Channels, PhoneError> {
        let reply = self
            .command(Ask::ListChannels(proto::ListChannels {}))
            .await?;
        let list = expect_reply!(reply, Channels)?;
        Ok(Channels {
            channels: list.channels.into_iter().map(Channel::from).collect(),
            closed: list.closed.into_iter().map(ClosedChannel::from).collect(),
        })
    }

    /// All payments, page by page. There may be very many: see [`Phone::payments_page`].
    pub async fn payments(&self) -> Result<Payments, PhoneError> {
        let mut all = self.payments_page(None, None).await?;
        while !all.next.is_empty() {
            let page = self.payments_page(None, Some(&all.next)).await?;
            // A host that names the same page again would have no end.
            let goes_on = !page.payments.is_empty() && page.next < all.next;
            let is_last = page.next.is_empty();
            if !(goes_on || is_last) || all.payments.len() > MOST_PAYMENTS {
                return Err(PhoneError::Answer("pages of payments without an end"));
            }
            all.payments.extend(page.payments);
            all.next = page.next;
        }
        Ok(all)
    }

    /// The newest payments, at most `limit` of them; with [`Payments::next`] of one page as `before`, those of the page after it.
    pub async fn payments_page(
        &self,
        limit: Option<u32>,
        before: Option<&str>,
    ) -> Result<Payments, PhoneError> {
        let list = proto::ListPayments {
            limit: limit.unwrap_or(0),
            before: before.map(check_cursor).transpose()?.unwrap_or_default(),
        };
        let reply = self.command(Ask::ListPayments(list)).await?;
        let page = expect_reply!(reply, Payments)?;
        let hashes = page.payments.iter().map(|it| &it.payment_hash[..]);
        let own = self.own_invoices(hashes).await?;
        let mut page = Payments::from(page);
        page.payments.iter_mut().for_each(|it| complete(it, &own));
        Ok(page)
    }

    /// One payment.
    pub async fn payment(&self, payment_hash: &str) -> Result<Payment, PhoneError> {
        let hash = check_payment_hash(payment_hash)?;
        let found = self.find_payment(&hash).await?;
        let mut payment = found.ok_or(InputError::PaymentUnknown)?;
        let own = self.own_invoices(std::iter::once(&hash[..])).await?;
        complete(&mut payment, &own);
        Ok(payment)
    }

    /// A payment in or out, as the host has it; `None` when it knows none.
    pub(crate) async fn find_payment(
        &self,
        hash: &[u8; 32],
    ) -> Result<Option<Payment>, PhoneError> {
        let get = proto::GetPayment {
            payment_hash: hash.to_vec(),
        };
        let reply = self.command(Ask::GetPayment(get)).await?;
        let found = expect_reply!(reply, FoundPayment)?.payment;
        match found.map(Payment::from) {
            Some(other) if other.payment_hash != hash.to_lower_hex_string() => {
                Err(PhoneError::Answer("it is about another payment"))
            }
            found => Ok(found),
        }
    }

    /// The owner's invoices that nobody has paid yet, newest first.
    pub async fn invoices(&self) -> Result<OpenInvoices, PhoneError> {
        let list = Ask::ListInvoices(proto::ListInvoices {});
        let invoices = expect_reply!(self.command(list).await?, Invoices)?.invoices;
        let hashes = invoices.iter().map(|it| &it.payment_hash[..]);
        let own = self.own_invoices(hashes).await?;
        let invoices = invoices.into_iter().map(|invoice| {
            let mut invoice = OpenInvoice::from(invoice);
            if let Some(bolt11) = own.get(&invoice.payment_hash) {
                invoice.bolt11.clone_from(bolt11);
            }
            invoice
        });
        Ok(OpenInvoices {
            invoices: invoices.collect(),
        })
    }

    /// Of these payment hashes those for which this phone has signed an invoice, in hex, and the invoice.
    async fn own_invoices<'a>(
        &self,
        hashes: impl Iterator<Item = &'a [u8]>,
    ) -> Result<HashMap<String, String>, PhoneError> {
        let hashes: HashSet<Vec<u8>> = hashes.map(<[u8]>::to_vec).collect();
        self.look(move |signer| {
            let payments = signer.payments();
            let asked = payments.filter(|it| hashes.contains(&it.payment_hash[..]));
            asked
                .map(|it| (it.payment_hash.to_lower_hex_string(), it.bolt11.clone()))
                .collect()
        })
        .await
    }

    /// Closes a channel (64 hex digits) together with the peer, or without it by force.
    /// While the peers have not agreed, the close goes on whenever the phone is attached.
    pub async fn close(&self, channel_id: &str, force: bool) -> Result<ClosingChannel, PhoneError> {
        let how = CloseHow {
            force,
            ..CloseHow::default()
        };
        self.close_as(channel_id, how).await
    }

    /// The same, to another address, or at another fee rate.
    pub async fn close_as(
        &self,
        channel_id: &str,
        how: CloseHow,
    ) -> Result<ClosingChannel, PhoneError> {
        let channel_id = check_channel_id(channel_id)?.to_vec();
        let how = check_close(how, self.network())?;
        let (force, address) = (how.force, how.address.unwrap_or_default());
        let wish = Wish::Close {
            channel_id: channel_id.clone(),
            force,
            address: address.clone(),
        };
        self.approved(wish).await?;
        let intent = ChannelIntent::Close {
            channel_id: channel_id.clone(),
            force,
            address: address.clone(),
        };
        let now = self.now_unix_s();
        self.call(move |signer| signer.add_channel_intent(intent, now))
            .await?;
        let close = proto::CloseChannel {
            channel_id: channel_id.clone(),
            force,
            address,
            feerate_sat_per_kw: how.feerate_sat_per_kw.unwrap_or(0),
        };
        let reply = self.command(Ask::CloseChannel(close)).await?;
        let closing = expect_reply!(reply, ClosingChannel)?;
        let channel_id = channel_id.to_lower_hex_string();
        let agreed = force || !closing.txid.is_empty() || self.wait_for_close(&channel_id).await?;
        Ok(ClosingChannel {
            channel_id,
            txid: plain(&closing.txid),
            agreed,
        })
    }

    /// Waits while the two nodes agree on the closing transaction, which needs this phone. HTLCs in flight may delay it for long:
    /// false after a few seconds.
    async fn wait_for_close(&self, channel_id: &str) -> Result<bool, PhoneError> {
        let runtime = &self.inner.runtime;
        let until = runtime.uptime() + CLOSE_LIMIT;
        while runtime.uptime() < until {
            let open = self.channels().await?.channels;
            if !open.iter().any(|channel| channel.channel_id == channel_id) {
                return Ok(true);
            }
            self.inner.runtime.sleep(CLOSE_PAUSE).await;
        }
        Ok(false)
    }

    /// Connects the node to a peer, or to the host's hub.
    pub async fn connect_peer(&self, to: Option<PeerAddress>) -> Result<(), PhoneError> {
        let (node_id, address) = match to {
            Some(peer) => (peer.node_id, peer.address),
            None => (self.hub().await?, String::new()),
        };
        self.call(move |signer| {
            signer.want_peer(node_id);
            Ok(Recorded::unchanged(()))
        })
        .await?;
        let connect = proto::ConnectPeer {
            node_id: node_id.serialize().to_vec(),
            address,
        };
        let reply = self.command(Ask::ConnectPeer(connect)).await?;
        expect_reply!(reply, PeerConnected).map(drop)
    }

    /// The hub that the host named when the phone registered, or names now.
    async fn hub(&self) -> Result<PublicKey, PhoneError> {
        let registered = self
            .inner
            .vault
            .host()?
            .map(|host| host.hub_node_id)
            .unwrap_or_default();
        let hub = match registered.is_empty() {
            true => {
                let reply = self.command(Ask::GetInfo(proto::GetInfo {})).await?;
                expect_reply!(reply, Info)?.hub_node_id
            }
            false => registered,
        };
        if hub.is_empty() {
            return Err(InputError::NoHub.into());
        }
        PublicKey::from_slice(&hub).map_err(|_| PhoneError::Answer("the hub's node id is none"))
    }

    pub(crate) async fn command(&self, command: Ask) -> Result<Reply, PhoneError> {
        self.ask(command, Some(PATIENCE)).await
    }
}
