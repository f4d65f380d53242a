//! A devnet's JSON-RPC, asked as any other program would.

use std::net::SocketAddr;

use bitcoin::{Address, Amount, Network, Script, opcodes};
use longhand_chain::{BitcoindAuth, BitcoindSource, ChainError};
use serde_json::{Value, json};

/// A client of one devnet.
pub struct Rpc(BitcoindSource);

impl Rpc {
    /// A client of the devnet at `address`.
    pub fn new(address: SocketAddr, user: String, password: String) -> Rpc {
        let auth = BitcoindAuth::UserPassword { user, password };
        Rpc(BitcoindSource::new(
            format!("http://{address}"),
            auth,
            Network::Regtest,
        ))
    }

    /// Any method.
    ///
    /// # Errors
    /// As the devnet answers, or because it does not.
    pub async fn call(&self, method: &str, params: &[Value]) -> Result<Value, ChainError> {
        self.0.call(method, params).await
    }

    /// The chain as a host sees it.
    pub fn source(&self) -> &BitcoindSource {
        &self.0
    }

    /// Mines blocks whose reward goes to nobody.
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub async fn mine(&self, blocks: u32) -> Result<(), ChainError> {
        let nobody = Script::builder()
            .push_opcode(opcodes::all::OP_RETURN)
            .into_script();
        let address = Address::p2wsh(&nobody, Network::Regtest).to_string();
        self.call("generatetoaddress", &[json!(blocks), json!(address)])
            .await
            .map(|_| ())
    }

    /// Sends coins; they are in the mempool after it. Returns the transaction's id.
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub async fn faucet(&self, address: &str, amount: Amount) -> Result<String, ChainError> {
        // As text: exact.
        let amount = amount.to_string_in(bitcoin::Denomination::Bitcoin);
        let txid = self
            .call("devnet_faucet", &[json!(address), json!(amount)])
            .await?;
        let malformed = || ChainError::Malformed("devnet_faucet gave no transaction id".into());
        txid.as_str().map(str::to_owned).ok_or_else(malformed)
    }
}
