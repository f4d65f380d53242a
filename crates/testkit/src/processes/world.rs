//! A chain, a host and phones, and where all of their satoshis are.

use std::time::Duration;

use bitcoin::hex::DisplayHex;
use bitcoin::{Address, OutPoint, ScriptBuf, Txid};
use longhand_chain::BlockReader;
use longhand_proto::operator::HubChannel;

use super::{ChainProcess, HostProcess, MailboxProcess, PhoneProcess};
use crate::accounts::{Books, OpenChannel};
use crate::{KitError, Patience};

/// devnet has no fee market: fee rates are at the floor.
const FEERATE_SAT_PER_KW: u64 = 253;
/// Enough for any channel to be ready.
const CONFIRMATIONS: u32 = 6;

/// All processes. Those that still run are killed when it is dropped.
pub struct World {
    /// The devnet.
    pub chain: ChainProcess,
    /// The host on it.
    pub host: HostProcess,
    /// The mailbox at which the host waits, if it does.
    pub mailbox: Option<MailboxProcess>,
    /// The owners' phones, in the order in which they were added.
    pub phones: Vec<PhoneProcess>,
    /// The faucet's outputs to the hub and to owners: transaction and script.
    pub given: Vec<(Txid, ScriptBuf)>,
}

impl World {
    /// A world without phones yet.
    pub fn new(chain: ChainProcess, host: HostProcess) -> World {
        World {
            chain,
            host,
            mailbox: None,
            phones: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Mines, and waits until the host has seen it.
    ///
    /// # Errors
    /// When either does not answer.
    pub async fn mine(&self, blocks: u32) -> Result<(), KitError> {
        self.chain.rpc.mine(blocks).await?;
        let height = self.chain.rpc.source().tip().await?.height;
        self.host.at_height(height).await
    }

    /// Coins from the faucet for the hub or an owner, confirmed.
    ///
    /// # Errors
    /// When the chain or the host does not answer.
    pub async fn give(&mut self, address: &str, amount_sat: u64) -> Result<(), KitError> {
        let txid = self.chain.faucet(address, amount_sat).await?;
        let wrong = |_| KitError::Unexpected(format!("{address} is not an address"));
        let address = address.parse::<Address<_>>().map_err(wrong)?;
        let script = address.assume_checked().script_pubkey();
        self.given.push((txid, script));
        self.mine(1).await
    }

    /// Coins from the faucet for the hub, confirmed.
    ///
    /// # Errors
    /// When the chain or the host does not answer.
    pub async fn fund_hub(&mut self, amount_sat: u64) -> Result<(), KitError> {
        let address = self.host.hub_address().await?;
        self.give(&address, amount_sat).await?;
        self.host.hub_has_coins(amount_sat).await
    }

    /// Adds a phone, `distance` away from the host one way: its owner is created, and it is paired and attached.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn add_phone(&mut self, name: &str, distance: Duration) -> Result<(), KitError> {
        self.add_phone_by(name, distance, None).await
    }

    /// As [`World::add_phone`], paired by ten words at the world's mailbox.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn add_phone_by_words(
        &mut self,
        name: &str,
        distance: Duration,
    ) -> Result<(), KitError> {
        let none = || KitError::Unexpected("the host waits at no mailbox".into());
        let mailbox = self.mailbox.as_ref().ok_or_else(none)?;
        let [_, lnc] = mailbox.hashmail.clone();
        self.add_phone_by(name, distance, Some(&lnc)).await
    }

    async fn add_phone_by(
        &mut self,
        name: &str,
        distance: Duration,
        words_at: Option<&str>,
    ) -> Result<(), KitError> {
        let mut phone = PhoneProcess::new(&self.host.launcher, name, distance);
        self.host.take_in(&mut phone, words_at).await?;
        // The keys for its first channel arrive in the first batches.
        let host = &self.host;
        let asked = Patience::REAL.until("the node has channel keys", async || {
            let node = host.node(name).await?;
            Ok::<_, KitError>((node.signer_batches > 0).then_some(()))
        });
        asked.await?;
        self.phones.push(phone);
        Ok(())
    }

    /// Waits until a channel's funding transaction is in the mempool, and mines until the channel is ready.
    ///
    /// # Errors
    /// When the chain or the host does not get there.
    pub async fn confirm(&self, funding: OutPoint) -> Result<(), KitError> {
        self.chain.in_mempool(&funding.txid.to_string()).await?;
        self.mine(CONFIRMATIONS).await
    }

    /// Stops all processes in order. Returns the errors of those that did not exit well.
    pub async fn stop(&mut self) -> Vec<KitError> {
        let mut errors = Vec::new();
        for phone in &mut self.phones {
            errors.extend(phone.process.stop().await.err());
        }
        errors.extend(self.host.stop().await.err());
        if let Some(mailbox) = &mut self.mailbox {
            errors.extend(mailbox.process.stop().await.err());
        }
        errors.extend(self.chain.process.stop().await.err());
        errors
    }
}

/// For the accounts.
impl World {
    /// The coins of the hub and the owners as the chain has them now. `fundings` are the outputs of their channels.
    ///
    /// # Errors
    /// When the chain does not answer, or the coins are mixed with others'.
    pub async fn books(&self, fundings: &[OutPoint]) -> Result<Books, KitError> {
        let source = self.chain.rpc.source();
        let mut books = Books::default();
        for height in 1..=source.tip().await?.height {
            let block = source.block(&source.hash_at(height).await?).await?;
            let taken = books.block(&block, &self.given, fundings);
            taken.map_err(KitError::Unexpected)?;
        }
        Ok(books)
    }

    /// The balances of all wallets, the hub's and the owners', with what is on its way to them.
    ///
    /// # Errors
    /// When the host does not answer.
    pub async fn wallets_sat(&self) -> Result<u64, KitError> {
        let hub = self.host.hub_balance().await?;
        let mut wallets_sat = hub.onchain_confirmed_sat + hub.onchain_pending_sat;
        for phone in &self.phones {
            let node = self.host.node(&phone.name).await?;
            wallets_sat += node.onchain_sat + node.onchain_pending_sat;
        }
        Ok(wallets_sat)
    }

    /// The owners' channels with the hub, as both sides report them.
    ///
    /// # Errors
    /// When a phone or the host does not answer, or the hub does not have the same channel.
    pub async fn open_channels(&self) -> Result<Vec<OpenChannel>, KitError> {
        let mut open = Vec::new();
        let of_hub = self.host.hub_channels().await?;
        for phone in &self.phones {
            for channel in phone.channels().await? {
                let missing = || {
                    KitError::Unexpected(format!(
                        "expected: the hub has the same channel; found: {channel:?}"
                    ))
                };
                let same =
                    |c: &&HubChannel| c.channel_id.to_lower_hex_string() == channel.channel_id;
                let hubs = of_hub.iter().find(same).ok_or_else(missing)?;
                let funding = channel.funding_outpoint.parse().map_err(|_| missing())?;
                open.push(OpenChannel {
                    funding,
                    balances_sat: [hubs.balance_msat / 1_000, channel.balance_msat / 1_000],
                    // Reserves are whole satoshis: the outbound amount has the same fraction as the balance.
                    is_split_within_a_satoshi: channel.outbound_msat % 1_000 != 0,
                    feerate_sat_per_kw: FEERATE_SAT_PER_KW,
                });
            }
        }
        Ok(open)
    }
}
