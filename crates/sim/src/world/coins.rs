//! Every satoshi of the owners and the hub, against the chain: the demo's books, continued from the template.

use bitcoin::{OutPoint, ScriptBuf, Txid};
use longhand_chain::Devnet;
use longhand_testkit::accounts::Books;

use crate::world::simulator::Simulator;

/// Books of the chain up to a height.
#[derive(Clone)]
pub struct Coins {
    books: Books,
    height: u32,
}

impl Coins {
    /// From the first block on.
    pub fn of_chain(sim: &Simulator) -> Result<Coins, String> {
        let mut coins = Coins {
            books: Books::default(),
            height: 0,
        };
        coins.books = coins.follow(&sim.devnet, &sim.given(), &[])?;
        coins.height = sim.devnet.tip().height;
        Ok(coins)
    }

    /// The books with the blocks since, up to the tip. `fundings`: of every channel that there was.
    pub fn follow(
        &self,
        devnet: &Devnet,
        given: &[(Txid, ScriptBuf)],
        fundings: &[OutPoint],
    ) -> Result<Books, String> {
        let mut books = self.books.clone();
        for height in self.height + 1..=devnet.tip().height {
            let hash = devnet.hash_at(height);
            let block = hash.and_then(|hash| devnet.block(&hash));
            let block = block.ok_or("the chain has a hole")?;
            books.block(&block, given, fundings)?;
        }
        Ok(books)
    }

    /// Fees paid up to this height.
    pub fn fees_sat(&self) -> u64 {
        fees_sat(&self.books)
    }
}

/// Fees of all transactions.
pub fn fees_sat(books: &Books) -> u64 {
    books.spends.iter().map(|spend| spend.fee_sat).sum()
}
