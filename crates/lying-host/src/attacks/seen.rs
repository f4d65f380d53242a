//! A chain that is not there: headers without work, channels that nobody funded or that are closed, proofs that prove nothing, and a tip that
//! is old.

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{OutPoint, Transaction};
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ClaimableHtlc, ExtendHeaders, GetPreimage};
use longhand_signer::{OutputState, Rule, SourceAnswer};
use longhand_spv::{Checkpoint, Headers, Params};

use super::chain::{first, funding, sign_psbt};
use super::commitment::{AFTER_SAT, PAID, PAID_MSAT};
use super::incoming::invoiced;
use crate::chain::{Chain, funding_transaction, prove};
use crate::funded::{deep, mine_and_prove, reorganise, spend_of, spend_of_htlc};
use crate::scene::*;
use crate::{Case, Cases};

pub(crate) const AMOUNT_MSAT: u64 = 50_000_000;
const TWO_HOURS_S: u64 = 2 * 60 * 60;

pub(super) fn cases() -> Vec<Case> {
    let mut all = headers();
    all.extend(proofs());
    all.extend(unproven());
    all.extend(unwatched());
    all.extend(late());
    all.extend(far());
    all.extend(stale());
    all
}

/// The operation with other headers.
fn changed(op: Op, change: impl FnOnce(&mut Vec<Header>)) -> Op {
    let Op::ExtendHeaders(ExtendHeaders { headers, .. }) = op else {
        panic!("no headers")
    };
    let mut headers: Vec<Header> = headers
        .chunks(Header::SIZE)
        .map(|header| deserialize(header).expect("a header"))
        .collect();
    change(&mut headers);
    Op::ExtendHeaders(ExtendHeaders {
        headers: headers.iter().flat_map(serialize).collect(),
        solutions: Vec::new(),
    })
}

/// Six new blocks, of which the phone knows none.
fn mined(phone: &mut Phone) -> Op {
    let known = phone.signer.headers().height();
    phone.chain.mine_empty(6);
    phone.chain.headers_above(known)
}

/// Six blocks on a fork that the phone does not have, three blocks below its tip.
fn forked(phone: &mut Phone) -> Chain {
    phone.chain.mine_empty(10);
    phone.show_headers();
    let mut fork = phone.chain.fork(7, b"fork");
    fork.mine_empty(6);
    fork
}

fn headers() -> Vec<Case> {
    let mut cases = Cases::of(Rule::Headers);
    cases.honest("the next blocks", mined);
    cases.honest("blocks that are known", |phone| {
        let op = mined(phone);
        phone.ask(op.clone()).expect("an honest step");
        op
    });
    cases.honest("known blocks, and new ones after them", |phone| {
        let op = mined(phone);
        phone.ask(op).expect("an honest step");
        phone.chain.mine_empty(1);
        phone.chain.headers_above(2)
    });
    cases.honest("a reorganisation", |phone| forked(phone).headers_above(7));
    cases.honest("a fork with less work", |phone| {
        let fork = forked(phone);
        changed(fork.headers_above(7), |headers| headers.truncate(2))
    });
    cases.attack("blocks that follow none that is known", |phone| {
        let op = mined(phone);
        changed(op, |headers| {
            headers.remove(0);
        })
    });
    cases.attack("blocks with a gap", |phone| {
        let op = mined(phone);
        changed(op, |headers| {
            headers.remove(2);
        })
    });
    cases.attack("blocks in the wrong order", |phone| {
        let op = mined(phone);
        changed(op, |headers| headers.reverse())
    });
    for at in 0..6 {
        cases.attack(format!("block {at} without proof of work"), move |phone| {
            let op = mined(phone);
            changed(op, |headers| {
                let target = headers[at].target();
                while headers[at].validate_pow(target).is_ok() {
                    headers[at].nonce += 1;
                }
                headers.truncate(at + 1);
            })
        });
        cases.attack(
            format!("block {at} with another difficulty"),
            move |phone| {
                let op = mined(phone);
                changed(op, |headers| {
                    headers[at].bits = bitcoin::CompactTarget::from_consensus(0x207f_fffe);
                    headers.truncate(at + 1);
                })
            },
        );
    }
    cases.attack("blocks of mainnet", |_| {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin).header;
        Op::ExtendHeaders(ExtendHeaders {
            headers: serialize(&genesis),
            solutions: Vec::new(),
        })
    });
    for (name, bytes) in [("a byte less", -1), ("a byte more", 1)] {
        cases.attack(format!("headers with {name}"), move |phone| {
            let Op::ExtendHeaders(mut op) = mined(phone) else {
                panic!("no headers")
            };
            let length = op.headers.len().saturating_add_signed(bytes);
            op.headers.resize(length, 0);
            Op::ExtendHeaders(op)
        });
    }
    cases.attack("more headers than a batch has", |phone| {
        let op = mined(phone);
        changed(op, |headers| headers.resize(2_017, headers[0]))
    });
    cases.all
}

/// A channel whose funding confirms, and is not proven yet.
fn confirmed(phone: &mut Phone) -> (Channel, Transaction) {
    phone.has_chain = false;
    let channel = Channel::open(phone);
    let transaction = funding_transaction(&channel.parameters);
    phone.chain.mine(std::slice::from_ref(&transaction));
    phone.chain.mine_empty(5);
    phone.show_headers();
    (channel, transaction)
}

fn proofs() -> Vec<Case> {
    let mut cases = Cases::of(Rule::Proof);
    cases.honest("a funding", |phone| {
        let (_, funding) = confirmed(phone);
        prove(&phone.chain.proof(funding.compute_txid()))
    });
    cases.honest("a funding again", |phone| {
        let (_, funding) = confirmed(phone);
        let proof = prove(&phone.chain.proof(funding.compute_txid()));
        phone.ask(proof.clone()).expect("an honest step");
        proof
    });
    cases.honest(
        "a funding in another block, after a reorganisation",
        |phone| {
            let (_, funding) = confirmed(phone);
            let proof = prove(&phone.chain.proof(funding.compute_txid()));
            phone.ask(proof).expect("an honest step");
            phone.chain = phone.chain.fork(0, b"fork");
            phone.chain.mine_empty(3);
            phone.chain.mine(std::slice::from_ref(&funding));
            phone.chain.mine_empty(5);
            let headers = phone.chain.headers_above(0);
            phone.ask(headers).expect("an honest step");
            prove(&phone.chain.proof(funding.compute_txid()))
        },
    );
    cases.honest("a close", |phone| {
        let (channel, _) = confirmed(phone);
        let close = spend_of(&channel);
        phone.chain.mine(std::slice::from_ref(&close));
        phone.show_headers();
        prove(&phone.chain.proof(close.compute_txid()))
    });
    // Every byte of it: the version, the block, the position, the branches and both transactions.
    for byte in 0..PROOF_BYTES {
        cases.attack(
            format!("a proof that is wrong in byte {byte}"),
            move |phone| {
                let (_, funding) = confirmed(phone);
                let Op::ProveTransaction(mut op) =
                    prove(&phone.chain.proof(funding.compute_txid()))
                else {
                    panic!("no proof")
                };
                assert_eq!(op.proof.len(), PROOF_BYTES, "each byte has a case");
                op.proof[byte] ^= 1;
                Op::ProveTransaction(op)
            },
        );
    }
    cases.attack("a block that the phone was not shown", |phone| {
        let (_, funding) = confirmed(phone);
        let mut other = Chain::new(b"other");
        other.mine(std::slice::from_ref(&funding));
        prove(&other.proof(funding.compute_txid()))
    });
    cases.attack("a block of a fork with less work", |phone| {
        let (_, funding) = confirmed(phone);
        let mut other = Chain::new(b"other");
        other.mine(std::slice::from_ref(&funding));
        phone.ask(other.headers_above(0)).expect("an honest step");
        prove(&other.proof(funding.compute_txid()))
    });
    cases.attack("a block that has left the chain", |phone| {
        let (_, funding) = confirmed(phone);
        let before = phone.chain.clone();
        reorganise(phone, 0, 12);
        prove(&before.proof(funding.compute_txid()))
    });
    cases.attack("a transaction of somebody else", |phone| {
        confirmed(phone);
        let block = phone.chain.block(1);
        let coinbase = block.txdata[0].compute_txid();
        prove(&phone.chain.proof(coinbase))
    });
    cases.honest("what spends an HTLC of a close", |phone| {
        let (close, spend) = closed_with_htlc(phone);
        mine_and_prove(phone, &close);
        phone.chain.mine(std::slice::from_ref(&spend));
        phone.show_headers();
        prove(&phone.chain.proof(spend.compute_txid()))
    });
    cases.honest("what spends another output of a close", |phone| {
        let (close, mut spend) = closed_with_htlc(phone);
        mine_and_prove(phone, &close);
        spend.input[0].previous_output.vout = 0;
        phone.chain.mine(std::slice::from_ref(&spend));
        phone.show_headers();
        prove(&phone.chain.proof(spend.compute_txid()))
    });
    cases.attack(
        "what spends an HTLC of a close that is not proven",
        |phone| {
            let (close, spend) = closed_with_htlc(phone);
            phone.chain.mine(&[close, spend.clone()]);
            phone.show_headers();
            prove(&phone.chain.proof(spend.compute_txid()))
        },
    );
    cases.attack("what spends a transaction after the close", |phone| {
        let (close, spend) = closed_with_htlc(phone);
        mine_and_prove(phone, &close);
        let mut next = spend.clone();
        next.input[0].previous_output = OutPoint::new(spend.compute_txid(), 0);
        phone.chain.mine(&[spend, next.clone()]);
        phone.show_headers();
        prove(&phone.chain.proof(next.compute_txid()))
    });
    cases.attack(
        "another output of the same value to the channel's keys",
        |phone| {
            let (channel, funding) = confirmed(phone);
            let mut other = funding_transaction(&channel.parameters);
            other.input[0].previous_output.vout += 1;
            assert_eq!(other.output, funding.output);
            phone.chain.mine(std::slice::from_ref(&other));
            phone.show_headers();
            prove(&phone.chain.proof(other.compute_txid()))
        },
    );
    cases.all
}

/// A commitment with an HTLC, and a transaction that spends it.
fn closed_with_htlc(phone: &mut Phone) -> (Transaction, Transaction) {
    let channel = deep(phone, 6);
    let claim = paid(phone, &channel);
    let close = commitment_with(&channel, &claim);
    let spend = spend_of_htlc(&close, AMOUNT_MSAT / 1_000);
    (close, spend)
}

/// The bytes of the proof of a funding in a block of two transactions.
const PROOF_BYTES: usize = 272;

pub(crate) fn claim(hash: [u8; 32], amount_msat: u64, cltv_expiry: u32) -> Op {
    Op::GetPreimage(GetPreimage {
        payment_hash: hash.to_vec(),
        htlcs: vec![ClaimableHtlc {
            channel_keys_id: KEYS_ID.to_vec(),
            amount_msat,
            cltv_expiry,
        }],
    })
}

/// An HTLC for an invoice is committed on both sides.
pub(crate) fn paid(phone: &mut Phone, channel: &Channel) -> Op {
    paid_until(phone, channel, 500)
}

pub(super) fn paid_until(phone: &mut Phone, channel: &Channel, cltv_expiry: u32) -> Op {
    let hash = invoiced(phone, AMOUNT_MSAT);
    let htlcs = [Htlc {
        cltv_expiry,
        ..Htlc::incoming(hash, AMOUNT_MSAT)
    }];
    for op in channel.peers_update(1, 400_000, &htlcs) {
        phone.ask(op).expect("an honest step");
    }
    claim(hash, AMOUNT_MSAT, cltv_expiry)
}

fn unproven() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PreimageUnproven);
    for (name, blocks) in [("three blocks", 3), ("six blocks", 6)] {
        cases.honest(
            format!("a payment over a channel of {name}"),
            move |phone| {
                let channel = deep(phone, blocks);
                paid(phone, &channel)
            },
        );
    }
    for blocks in [1, 2] {
        cases.attack(
            format!("a payment over a channel of a peer's that {blocks} blocks confirm"),
            move |phone| {
                let channel = deep(phone, blocks);
                paid(phone, &channel)
            },
        );
    }
    cases.attack(
        "a payment over a large channel that five blocks confirm",
        |phone| {
            phone.limit("large_channel_sat", &VALUE_SAT.to_string());
            let channel = deep(phone, 5);
            paid(phone, &channel)
        },
    );
    cases.honest(
        "a payment over a large channel that six blocks confirm",
        |phone| {
            phone.limit("large_channel_sat", &VALUE_SAT.to_string());
            let channel = deep(phone, 6);
            paid(phone, &channel)
        },
    );
    cases.attack("a payment over a channel that nobody funded", |phone| {
        phone.has_chain = false;
        let channel = Channel::open(phone);
        phone.chain.mine_empty(10);
        phone.show_headers();
        paid(phone, &channel)
    });
    cases.attack(
        "a payment over a channel whose funding was not proven",
        |phone| {
            let (channel, _) = confirmed(phone);
            paid(phone, &channel)
        },
    );
    cases.attack("the funding has left the chain", |phone| {
        let channel = deep(phone, 6);
        reorganise(phone, 0, 12);
        paid(phone, &channel)
    });
    cases.attack("the phone has started again without its headers", |phone| {
        let channel = deep(phone, 6);
        let claim = paid(phone, &channel);
        let params = Params::of(bitcoin::Network::Regtest);
        let checkpoint = Checkpoint::latest(&params);
        phone.signer.set_headers(Headers::new(params, checkpoint));
        claim
    });
    cases.attack("the channel was closed by a transaction of both", |phone| {
        let channel = deep(phone, 6);
        let claim = paid(phone, &channel);
        mine_and_prove(phone, &spend_of(&channel));
        claim
    });
    cases.attack(
        "the channel was closed by a commitment before the HTLC",
        |phone| {
            let channel = deep(phone, 6);
            let before = channel.theirs(0, 400_000, &[]);
            let claim = paid(phone, &channel);
            let before = before.trust().built_transaction().transaction.clone();
            mine_and_prove(phone, &before);
            claim
        },
    );
    cases.honest(
        "the channel was closed by the commitment with the HTLC",
        |phone| {
            let channel = deep(phone, 6);
            let claim = paid(phone, &channel);
            mine_and_prove(phone, &commitment_with(&channel, &claim));
            claim
        },
    );
    cases.honest("an HTLC of the close that was claimed already", |phone| {
        let channel = deep(phone, 6);
        let claim = paid(phone, &channel);
        let close = commitment_with(&channel, &claim);
        mine_and_prove(phone, &close);
        mine_and_prove(phone, &spend_of_htlc(&close, AMOUNT_MSAT / 1_000));
        claim
    });
    cases.honest(
        "the block in which the HTLC was claimed has left the chain",
        |phone| {
            let channel = deep(phone, 6);
            let claim = paid(phone, &channel);
            let close = commitment_with(&channel, &claim);
            mine_and_prove(phone, &close);
            mine_and_prove(phone, &spend_of_htlc(&close, AMOUNT_MSAT / 1_000));
            let height = phone.chain.height() - 1;
            reorganise(phone, height, 2);
            claim
        },
    );
    cases.honest("the block of the close has left the chain", |phone| {
        let channel = deep(phone, 6);
        let claim = paid(phone, &channel);
        mine_and_prove(phone, &spend_of(&channel));
        let height = phone.chain.height() - 1;
        reorganise(phone, height, 2);
        claim
    });
    cases.all
}

/// The owner's second source says so of the channel that was set up last, now, when its tip is so many blocks above the phone's.
fn source_says(phone: &mut Phone, above: i32, state: OutputState) {
    let height = phone.signer.headers().height();
    let answer = SourceAnswer {
        height: height.saturating_add_signed(above),
        at_unix_s: phone.now_unix_s,
        state,
    };
    let funding = phone.funding;
    phone.signer.source_said(funding, answer);
}

/// An HTLC for an invoice in a channel of a phone whose owner has named a second source, which has said nothing yet; the claim.
fn watched(phone: &mut Phone) -> (Channel, Op) {
    phone.limit("second_source", SOURCE);
    let channel = deep(phone, 6);
    let claim = paid(phone, &channel);
    (channel, claim)
}

fn unwatched() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PreimageUnwatched);
    for above in [0, 1] {
        cases.honest(
            format!("the second source says that the channel is open, {above} blocks later"),
            move |phone| {
                let (_, claim) = watched(phone);
                source_says(phone, above, OutputState::Unspent);
                claim
            },
        );
    }
    cases.attack("the second source has said nothing yet", |phone| {
        watched(phone).1
    });
    cases.attack("the second source has said so of an older block", |phone| {
        let (_, claim) = watched(phone);
        source_says(phone, -1, OutputState::Unspent);
        claim
    });
    cases.attack(
        "a block has come since the second source said so",
        |phone| {
            let (_, claim) = watched(phone);
            source_says(phone, 0, OutputState::Unspent);
            phone.chain.mine_empty(1);
            phone.show_headers();
            claim
        },
    );
    cases.attack(
        "the second source said so more than a minute ago",
        |phone| {
            let (_, claim) = watched(phone);
            source_says(phone, 0, OutputState::Unspent);
            phone.now_unix_s += 61;
            claim
        },
    );
    cases.attack("another source was asked", |phone| {
        let (_, claim) = watched(phone);
        source_says(phone, 0, OutputState::Unspent);
        phone.limit("second_source", "https://other.example/api");
        claim
    });
    cases.attack("a close that waits for a block", |phone| {
        let (_, claim) = watched(phone);
        source_says(phone, 0, OutputState::Spending);
        claim
    });
    cases.attack(
        "a close that the host hides and the second source does not",
        |phone| {
            let (channel, claim) = watched(phone);
            let close = spend_of(&channel).compute_txid();
            source_says(phone, 0, OutputState::Spent(Some(close)));
            claim
        },
    );
    cases.attack("a close by a transaction that nobody names", |phone| {
        let (_, claim) = watched(phone);
        source_says(phone, 0, OutputState::Spent(None));
        claim
    });
    cases.honest(
        "a close by the commitment with the HTLC, which the source names",
        |phone| {
            let (channel, claim) = watched(phone);
            let holder = channel.holder(1, 400_000, &[claimed(&claim)]);
            source_says(phone, 0, OutputState::Spent(Some(holder.trust().txid())));
            claim
        },
    );
    cases.all
}

/// The peer's commitment with the HTLC whose preimage an operation asks for.
pub(super) fn commitment_with(channel: &Channel, claim: &Op) -> Transaction {
    let theirs = channel.theirs(1, 400_000, &[claimed(claim)]);
    theirs.trust().built_transaction().transaction.clone()
}

/// The HTLC whose preimage an operation asks for.
fn claimed(claim: &Op) -> Htlc {
    let Op::GetPreimage(op) = claim else {
        panic!("no claim")
    };
    Htlc {
        cltv_expiry: op.htlcs[0].cltv_expiry,
        ..Htlc::incoming(
            op.payment_hash[..].try_into().expect("a hash"),
            op.htlcs[0].amount_msat,
        )
    }
}

const SOURCE: &str = "https://source.example/api";

/// A channel, and the height, which is such that an HTLC that expires soon has an onion.
pub(super) fn opened(phone: &mut Phone) -> (Channel, u32) {
    let channel = Channel::open(phone);
    phone.chain.mine_empty(60);
    phone.show_headers();
    let height = phone.chain.height();
    (channel, height)
}

fn late() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PreimageLate);
    for blocks in [40, 41, 144] {
        cases.honest(
            format!("a payment whose HTLC expires in {blocks} blocks"),
            move |phone| {
                let (channel, height) = opened(phone);
                paid_until(phone, &channel, height + blocks)
            },
        );
    }
    for blocks in [39, 20, 1, 0] {
        cases.attack(
            format!("a payment whose HTLC expires in {blocks} blocks"),
            move |phone| {
                let (channel, height) = opened(phone);
                paid_until(phone, &channel, height + blocks)
            },
        );
    }
    cases.attack("a payment that waited until its HTLC expires", |phone| {
        let (channel, height) = opened(phone);
        let claim = paid_until(phone, &channel, height + 50);
        phone.chain.mine_empty(11);
        phone.show_headers();
        claim
    });
    cases.attack("the peer has taken back the HTLC of the close", |phone| {
        let (channel, height) = opened(phone);
        let claim = paid_until(phone, &channel, height + 50);
        let close = commitment_with(&channel, &claim);
        mine_and_prove(phone, &close);
        phone.chain.mine_empty(50);
        phone.show_headers();
        mine_and_prove(phone, &spend_of_htlc(&close, AMOUNT_MSAT / 1_000));
        claim
    });
    cases.honest(
        "a preimage that was released before, when it is late",
        |phone| {
            let channel = Channel::open(phone);
            let height = phone.chain.height();
            let claim = paid_until(phone, &channel, height + 50);
            phone.ask(claim.clone()).expect("an honest step");
            phone.chain.mine_empty(49);
            phone.show_headers();
            claim
        },
    );
    cases.all
}

fn far() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PaymentFar);
    let offer = |blocks: u32| {
        move |phone: &mut Phone| {
            let channel = Channel::open(phone);
            phone.intend(PAID, PAID_MSAT);
            let htlc = Htlc {
                cltv_expiry: phone.chain.height() + blocks,
                ..Htlc::outgoing(PAID, PAID_MSAT)
            };
            sign(&channel.theirs(1, AFTER_SAT, &[htlc]))
        }
    };
    for blocks in [100, 2_016] {
        cases.honest(
            format!("an HTLC that expires in {blocks} blocks"),
            offer(blocks),
        );
    }
    for blocks in [2_017, 10_000, 400_000_000] {
        cases.attack(
            format!("an HTLC that expires in {blocks} blocks"),
            offer(blocks),
        );
    }
    cases.all
}

/// The phone takes a tip of two hours for old, and has seen a block of now.
fn fresh(phone: &mut Phone) {
    let params = Params::of(bitcoin::Network::Regtest);
    let params = params.with_stale_after(Some(7_200));
    let checkpoint = Checkpoint::latest(&params);
    phone.signer.set_headers(Headers::new(params, checkpoint));
    phone.chain.next_unix_s = Some(u32::try_from(phone.now_unix_s).expect("a time"));
    phone.chain.mine_empty(1);
    phone.show_headers();
}

fn stale() -> Vec<Case> {
    let mut cases = Cases::of(Rule::StaleChain);
    type Prepare = fn(&mut Phone) -> Op;
    let asked: [(&str, Prepare); 4] = [
        ("a preimage", |phone| {
            let channel = Channel::open(phone);
            paid(phone, &channel)
        }),
        ("an HTLC that the owner pays", |phone| {
            let channel = Channel::open(phone);
            phone.intend(PAID, PAID_MSAT);
            sign(&channel.theirs(1, AFTER_SAT, &[Htlc::outgoing(PAID, PAID_MSAT)]))
        }),
        ("the setup of a channel", |phone| {
            Channel::new(phone).setup()
        }),
        ("the funding of a channel", |phone| {
            let (channel, psbt) = funding(phone, |_, _| ());
            phone.ask(first(&channel)).expect("an honest step");
            sign_psbt(&psbt, Purpose::Funding)
        }),
    ];
    for (name, ask) in asked {
        cases.honest(
            format!("{name} two hours after the last block"),
            move |phone| {
                fresh(phone);
                let op = ask(phone);
                phone.now_unix_s += TWO_HOURS_S;
                op
            },
        );
        for seconds in [TWO_HOURS_S + 1, 24 * 60 * 60, 7 * 24 * 60 * 60] {
            cases.attack(
                format!("{name} {seconds} seconds after the last block"),
                move |phone| {
                    fresh(phone);
                    let op = ask(phone);
                    phone.now_unix_s += seconds;
                    op
                },
            );
        }
    }
    cases.honest(
        "a preimage that was released before, whatever the tip",
        |phone| {
            fresh(phone);
            let channel = Channel::open(phone);
            let claim = paid(phone, &channel);
            phone.ask(claim.clone()).expect("an honest step");
            phone.now_unix_s += 100 * TWO_HOURS_S;
            claim
        },
    );
    cases.honest("a commitment of the owner with an old tip", |phone| {
        fresh(phone);
        let channel = Channel::open(phone);
        phone.now_unix_s += 100 * TWO_HOURS_S;
        validate(&channel.holder(1, 400_000, &[]))
    });
    cases.honest(
        "a commitment of the peer without a new HTLC, with an old tip",
        |phone| {
            fresh(phone);
            let channel = Channel::open(phone);
            phone.now_unix_s += 100 * TWO_HOURS_S;
            sign(&channel.theirs(1, 400_000, &[]))
        },
    );
    cases.honest(
        "what waited for a fresh tip, after the next block",
        |phone| {
            fresh(phone);
            let channel = Channel::open(phone);
            let claim = paid(phone, &channel);
            phone.now_unix_s += 2 * TWO_HOURS_S;
            phone.ask(claim.clone()).expect_err("the tip is old");
            phone.chain.next_unix_s = Some(u32::try_from(phone.now_unix_s).expect("a time"));
            phone.chain.mine_empty(1);
            phone.show_headers();
            claim
        },
    );
    cases.all
}
