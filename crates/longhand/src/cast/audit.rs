//! What the accounts need to know, asked of the cast.

use bitcoin::hex::DisplayHex;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use longhand_chain::BlockReader;
use longhand_proto::operator::HubChannel;

use super::CastError;
use super::accounts::{Books, OpenChannel};
use super::chain::Chain;
use super::host::Host;
use super::phone::Phone;

/// devnet has no fee market: fee rates are at the floor.
const FEERATE_SAT_PER_KW: u64 = 253;

/// The nodes' coins as the chain has them now. `given` is what the faucet gave them, and `fundings` are the outputs of
/// their channels.
///
/// # Errors
/// When the chain does not answer, or the coins are mixed with others'.
pub async fn books(
    chain: &Chain,
    given: &[(Txid, ScriptBuf)],
    fundings: &[OutPoint],
) -> Result<Books, CastError> {
    let source = chain.rpc.source();
    let mut books = Books::default();
    for height in 1..=source.tip().await?.height {
        let block = source.block(&source.hash_at(height).await?).await?;
        books
            .block(&block, given, fundings)
            .map_err(CastError::Off)?;
    }
    Ok(books)
}

/// What all wallets have and wait for, the hub's and the owners'.
///
/// # Errors
/// When the host does not answer.
pub async fn wallets_sat(
    host: &Host,
    phones: impl IntoIterator<Item = &Phone>,
) -> Result<u64, CastError> {
    let hub = host.hub_balance().await?;
    let mut wallets_sat = hub.onchain_confirmed_sat + hub.onchain_pending_sat;
    for phone in phones {
        let node = host.node(&phone.name).await?;
        wallets_sat += node.onchain_sat + node.onchain_pending_sat;
    }
    Ok(wallets_sat)
}

/// The phones' channels with the hub, as both sides see them.
///
/// # Errors
/// When somebody does not answer, or the hub does not have the same channel.
pub async fn open_channels(
    host: &Host,
    phones: impl IntoIterator<Item = &Phone>,
) -> Result<Vec<OpenChannel>, CastError> {
    let mut open = Vec::new();
    let of_hub = host.hub_channels().await?;
    for phone in phones {
        for channel in phone.channels().await? {
            let missing = || {
                CastError::Off(format!(
                    "expected: the hub has the same channel; found: {channel:?}"
                ))
            };
            let same = |c: &&HubChannel| c.channel_id.to_lower_hex_string() == channel.channel_id;
            let hubs = of_hub.iter().find(same).ok_or_else(missing)?;
            let funding = channel.funding_outpoint.parse().map_err(|_| missing())?;
            open.push(OpenChannel {
                funding,
                balances_sat: [hubs.balance_msat / 1_000, channel.balance_msat / 1_000],
                // Reserves are whole satoshis: what can be sent ends as what is owned.
                is_split_within_a_satoshi: channel.outbound_msat % 1_000 != 0,
                feerate_sat_per_kw: FEERATE_SAT_PER_KW,
            });
        }
    }
    Ok(open)
}
