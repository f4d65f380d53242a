//! The owner's balance over random lives of a channel: an honest host is never refused, and one that takes some satoshis always is.
//!
//! Commitments show whole satoshis and HTLCs have millisatoshis, so that less than a satoshi is not seen in a step, and less than
//! one more for each HTLC without an output: a host is refused for ten in any of these lives.

use bitcoin::hashes::{Hash, sha256};
use longhand_lying_host::invoice::{Draft, EXPIRY_S, finish};
use longhand_lying_host::scene::*;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::{InvoiceRequest, Rule};
use proptest::prelude::*;

/// An update of the channel, carried through both sides' commitments.
#[derive(Clone, Copy, Debug)]
enum Update {
    /// The owner offers an HTLC for a payment.
    Pay(u64),
    /// One without an output.
    PaySmall(u64),
    /// The payment that was offered first is fulfilled.
    Paid,
    /// It fails.
    Failed,
    /// The peer offers an HTLC that the owner has no invoice for.
    Offered(u64),
    /// The owner fails it.
    Refused,
    /// The peer pays an invoice, and the owner takes the money.
    Earned(u64),
}

/// A theft in one commitment.
#[derive(Clone, Copy, Debug)]
struct Theft {
    /// Which commitment of the life, both sides counted.
    at: usize,
    sat: u64,
}

struct Life {
    phone: Phone,
    channel: Channel,
    step: u64,
    owner_msat: u64,
    outgoing: Vec<(Htlc, [u8; 32])>,
    incoming: Vec<Htlc>,
    number: u8,
    commitments: usize,
    theft: Option<Theft>,
}

/// What the phone refused.
type Refusal = Rule;

impl Life {
    fn new(theft: Option<Theft>) -> Life {
        let mut phone = Phone::new();
        let channel = Channel::open(&mut phone);
        Life {
            phone,
            channel,
            step: 0,
            owner_msat: 400_000_000,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            number: 0,
            commitments: 0,
            theft,
        }
    }

    fn update(&mut self, update: Update) -> Result<(), Refusal> {
        match update {
            Update::Pay(msat) => {
                let (hash, preimage) = self.asks_to_pay(msat);
                self.owner_msat -= msat;
                self.outgoing.push((Htlc::outgoing(hash, msat), preimage));
                self.by_owner(&[], &[])
            }
            Update::PaySmall(msat) => {
                let (hash, _) = self.asks_to_pay(msat);
                self.owner_msat -= msat;
                self.by_owner(&[(hash, msat)], &[])
            }
            Update::Paid if !self.outgoing.is_empty() => {
                let (_, preimage) = self.outgoing.remove(0);
                self.by_peer(&[preimage])
            }
            Update::Failed if !self.outgoing.is_empty() => {
                let (htlc, _) = self.outgoing.remove(0);
                self.owner_msat += htlc.amount_msat;
                self.by_peer(&[])
            }
            Update::Offered(msat) => {
                self.number += 1;
                self.incoming
                    .push(Htlc::incoming([200 - self.number; 32], msat));
                self.by_peer(&[])
            }
            Update::Refused if !self.incoming.is_empty() => {
                self.incoming.remove(0);
                self.by_owner(&[], &[])
            }
            Update::Earned(msat) => self.earn(msat),
            Update::Paid | Update::Failed | Update::Refused => Ok(()),
        }
    }

    /// A payment hash of the owner's intent, and its preimage.
    fn asks_to_pay(&mut self, msat: u64) -> ([u8; 32], [u8; 32]) {
        self.number += 1;
        let preimage = [self.number; 32];
        let hash = sha256::Hash::hash(&preimage).to_byte_array();
        self.phone.intend(hash, msat);
        (hash, preimage)
    }

    fn earn(&mut self, msat: u64) -> Result<(), Refusal> {
        self.number += 1;
        let made = self
            .phone
            .signer
            .new_payment(msat, [100 + self.number; 32], NOW)
            .unwrap();
        self.phone.keep(&made.records);
        let asked = InvoiceRequest {
            payment_hash: made.value,
            amount_msat: msat,
            description: "coffee".into(),
            expiry_s: EXPIRY_S,
        };
        finish(&mut self.phone, &Draft::of(&asked), &asked).unwrap();
        self.incoming.push(Htlc::incoming(made.value, msat));
        self.by_peer(&[])?;
        let claim = GetPreimage {
            payment_hash: made.value.to_vec(),
            htlcs: Vec::new(),
        };
        self.ask(Op::GetPreimage(claim))?;
        self.incoming.pop();
        self.owner_msat += msat;
        self.by_owner(&[], &[])
    }

    /// The owner's update: the peer's commitment has it first.
    fn by_owner(
        &mut self,
        trimmed: &[([u8; 32], u64)],
        preimages: &[[u8; 32]],
    ) -> Result<(), Refusal> {
        self.step += 1;
        self.signs(trimmed, preimages)?;
        self.validates(preimages)
    }

    /// The peer's: the owner's commitment has it first.
    fn by_peer(&mut self, preimages: &[[u8; 32]]) -> Result<(), Refusal> {
        self.step += 1;
        self.validates(preimages)?;
        self.signs(&[], preimages)
    }

    fn signs(
        &mut self,
        trimmed: &[([u8; 32], u64)],
        preimages: &[[u8; 32]],
    ) -> Result<(), Refusal> {
        let shown_sat = self.shown_sat();
        let theirs = self.channel.theirs(self.step, shown_sat, &self.htlcs());
        let Op::SignCounterpartyCommitment(sign) = sign(&theirs) else {
            unreachable!()
        };
        self.ask(Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
            trimmed: trimmed
                .iter()
                .map(|(hash, amount_msat)| TrimmedHtlc {
                    payment_hash: hash.to_vec(),
                    amount_msat: *amount_msat,
                })
                .collect(),
            outbound_preimages: preimages.iter().map(|it| it.to_vec()).collect(),
            ..sign
        }))?;
        self.ask(self.channel.revocation(self.step - 1))
    }

    fn validates(&mut self, preimages: &[[u8; 32]]) -> Result<(), Refusal> {
        let shown_sat = self.shown_sat();
        let ours = self.channel.holder(self.step, shown_sat, &self.htlcs());
        let Op::ValidateHolderCommitment(validate) = validate(&ours) else {
            unreachable!()
        };
        self.ask(Op::ValidateHolderCommitment(ValidateHolderCommitment {
            outbound_preimages: preimages.iter().map(|it| it.to_vec()).collect(),
            ..validate
        }))?;
        self.ask(release(self.step - 1))
    }

    fn ask(&mut self, op: Op) -> Result<(), Refusal> {
        let done = self.phone.ask(op).map(drop);
        self.phone.restart();
        done.map_err(|refusal| rule(&refusal))
    }

    /// The owner's output in the next commitment, or less.
    fn shown_sat(&mut self) -> u64 {
        let honest_sat = self.owner_msat / 1_000;
        let stolen = self.theft.filter(|theft| theft.at == self.commitments);
        self.commitments += 1;
        honest_sat - stolen.map_or(0, |theft| theft.sat)
    }

    fn htlcs(&self) -> Vec<Htlc> {
        let outgoing = self.outgoing.iter().map(|(htlc, _)| *htlc);
        outgoing.chain(self.incoming.iter().copied()).collect()
    }
}

fn updates() -> impl Strategy<Value = Vec<Update>> {
    let one = prop_oneof![
        (400_000..20_000_000u64).prop_map(Update::Pay),
        (1..354_000u64).prop_map(Update::PaySmall),
        Just(Update::Paid),
        Just(Update::Failed),
        (400_000..20_000_000u64).prop_map(Update::Offered),
        Just(Update::Refused),
        (400_000..20_000_000u64).prop_map(Update::Earned),
    ];
    proptest::collection::vec(one, 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_honest_host_is_never_refused(updates in updates()) {
        let mut life = Life::new(None);
        for update in updates {
            prop_assert_eq!(life.update(update), Ok(()), "{:?}", update);
        }
    }

    #[test]
    fn a_host_that_takes_ten_satoshis_or_more_is_refused_at_once(
        updates in updates(),
        at in 0..16usize,
        sat in 10..200_000u64,
    ) {
        let mut life = Life::new(Some(Theft { at, sat }));
        let mut refused = Ok(());
        for update in updates {
            refused = life.update(update);
            if refused.is_err() {
                break;
            }
        }
        let expected = match life.commitments > at {
            true => Err(Rule::Balance),
            false => Ok(()),
        };
        prop_assert_eq!(refused, expected);
    }
}
