//! Channels in the chain of a scene: funded, spent, and taken away by a reorganisation.

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};

use crate::chain::{funding_transaction, prove, transaction};
use crate::scene::{Channel, Phone, VALUE_SAT};

/// A transaction that spends the funding output, and is none of the channel's commitments.
pub fn spend_of(channel: &Channel) -> Transaction {
    let funding = channel.parameters.funding_outpoint;
    let funding = funding.expect("a whole channel").into_bitcoin_outpoint();
    transaction(
        funding,
        TxOut {
            value: Amount::from_sat(VALUE_SAT - 1_000),
            script_pubkey: ScriptBuf::new(),
        },
    )
}

/// A transaction that spends the output of this value, of a commitment with one HTLC of it.
pub fn spend_of_htlc(commitment: &Transaction, sat: u64) -> Transaction {
    let mut outputs = commitment.output.iter().zip(0..);
    let (_, vout) = outputs
        .find(|(output, _)| output.value == Amount::from_sat(sat))
        .expect("a commitment with the HTLC");
    let output = OutPoint {
        txid: commitment.compute_txid(),
        vout,
    };
    transaction(
        output,
        TxOut {
            value: Amount::from_sat(sat - 500),
            script_pubkey: ScriptBuf::new(),
        },
    )
}

/// A block with this transaction, which the phone sees, and its proof.
pub fn mine_and_prove(phone: &mut Phone, transaction: &Transaction) {
    phone.chain.mine(std::slice::from_ref(transaction));
    phone.show_headers();
    let proof = prove(&phone.chain.proof(transaction.compute_txid()));
    phone.ask(proof).expect("an honest step");
}

/// A channel of a peer's that so many blocks confirm.
pub fn deep(phone: &mut Phone, blocks: u32) -> Channel {
    phone.has_chain = false;
    let channel = Channel::open(phone);
    let funding = funding_transaction(&channel.parameters);
    mine_and_prove(phone, &funding);
    phone.chain.mine_empty(blocks - 1);
    phone.show_headers();
    channel
}

/// So many blocks take the place of those above a height, and the phone sees them.
pub fn reorganise(phone: &mut Phone, above: u32, blocks: u32) {
    phone.chain = phone.chain.fork(above, b"fork");
    phone.chain.mine_empty(blocks);
    let headers = phone.chain.headers_above(above);
    phone.ask(headers).expect("an honest step");
}
