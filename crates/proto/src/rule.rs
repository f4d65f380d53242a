//! Names of the rules by which a phone's signer refuses an operation. A refusal carries the name as text, so that a program of an
//! earlier version can receive one that it does not know.

use std::fmt;
use std::str::FromStr;

use crate::signer::Refusal;

/// The subject of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The operation itself, whatever it is about.
    Form,
    /// The setup of a channel.
    Setup,
    /// A commitment of either side (BOLT 3).
    Commitment,
    /// The revocation of a commitment by either side (BOLT 2, `revoke_and_ack`).
    Revocation,
    /// A close of a channel, and the transactions that follow on chain (BOLT 5).
    Close,
    /// The on-chain wallet.
    Onchain,
    /// An incoming payment: its invoice and its preimage.
    Payment,
    /// The node's gossip (BOLT 7).
    Gossip,
    /// A handshake with a peer (BOLT 8).
    Handshake,
    /// The chain as the phone sees it: headers, and transactions in blocks.
    Chain,
}

/// Whether an operation that a rule refused may be answered later, unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The refusal is final.
    Never,
    /// Each refusal says so.
    Sometimes,
    /// It may be answered later.
    Always,
}

/// The properties of a rule, for its accessors.
struct Row {
    name: &'static str,
    kind: Kind,
    retry: Retry,
    tags: &'static [&'static str],
    summary: &'static str,
}

/// Makes the enum and its table. A row: the variant, its stable name, its kind, its retry, its tags in the policy list of VLS, and
/// what it refuses, as a part of a sentence.
macro_rules! rules {
    ($($rule:ident: $name:literal, $kind:ident, $retry:ident, [$($tag:literal),* $(,)?], $summary:literal;)*) => {
        /// A rule by which the signer refuses an operation.
        ///
        /// Its name is an interface: it never changes. Rules may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = concat!("`", $name, "` refuses ", $summary, ".")] $rule,)*
        }

        impl Rule {
            /// All rules, those of one kind together.
            pub const ALL: &'static [Rule] = &[$(Rule::$rule),*];

            const fn row(self) -> &'static Row {
                match self {
                    $(Rule::$rule => &Row {
                        name: $name,
                        kind: Kind::$kind,
                        retry: Retry::$retry,
                        tags: &[$($tag),*],
                        summary: $summary,
                    },)*
                }
            }
        }
    };
}

rules! {
    Malformed: "malformed", Form, Sometimes, [],
        "an operation that cannot be read, or whose parts contradict each other; for now, one whose answer does not fit into the \
         reply to its batch";
    UnknownChannel: "unknown-channel", Form, Never, [],
        "an operation on a channel that was never set up with this ledger";
    Duplicate: "duplicate", Form, Never, [],
        "a preimage, an invoice or a command's id that was used before for something else";

    SetupLedger: "setup-ledger", Setup, Never, [],
        "the setup of a channel that this ledger does not know and whose keys were not given with it: the channel may be an old one, \
         such as after a loss of the ledger";
    SetupChanged: "setup-changed", Setup, Never, [],
        "another setup of a channel with other parameters";
    SetupKeys: "setup-keys", Setup, Never, [],
        "the setup of a channel with holder keys that are not the phone's, or with counterparty keys that are";
    SetupType: "setup-type", Setup, Never, ["policy-channel-safe-type"],
        "the setup of a channel of a type that the signer does not know how to keep safe, or of a splice";
    SetupUnasked: "setup-unasked", Setup, Never, [],
        "the setup of a channel that the owner did not ask to open, or of a peer that may not open one";
    SetupSize: "setup-size", Setup, Never, ["policy-funding-max"],
        "the setup of a channel above the owner's limit";
    SetupDelay: "setup-delay", Setup, Never, [
            "policy-channel-contest-delay-range-holder",
            "policy-channel-contest-delay-range-counterparty",
        ],
        "the setup of a channel in which the owner would wait more than 2,016 blocks for its own outputs, or the peer fewer than 144 for \
         its";
    SetupTerms: "setup-terms", Setup, Never, [],
        "the setup of a channel whose peer has a higher dust limit, or has the owner keep a larger reserve, than the owner's limits allow";
    SetupOutpoint: "setup-outpoint", Setup, Never, [],
        "the setup of a channel in a funding output that another one has";

    CommitmentMismatch: "commitment-mismatch", Commitment, Never, [
            "policy-commitment-version",
            "policy-commitment-locktime",
            "policy-commitment-sequence",
            "policy-commitment-input-single",
            "policy-commitment-input-match-funding",
            "policy-commitment-singular-to-holder",
            "policy-commitment-singular-to-counterparty",
            "policy-commitment-no-unrecognized-outputs",
            "policy-commitment-revocation-pubkey",
            "policy-commitment-broadcaster-pubkey",
            "policy-commitment-countersignatory-pubkey",
            "policy-commitment-htlc-revocation-pubkey",
            "policy-commitment-htlc-counterparty-htlc-pubkey",
            "policy-commitment-htlc-holder-htlc-pubkey",
            "policy-commitment-anchors-not-when-off",
            "policy-commitment-anchor-to-holder",
            "policy-commitment-anchor-to-counterparty",
            "policy-commitment-anchor-amount",
            "policy-commitment-anchor-match-fundingkey",
        ],
        "a commitment with outputs or keys that do not follow from the channel's parameters, or above its capacity";
    HolderNumber: "holder-number", Commitment, Never, ["policy-commitment-retry-same"],
        "a holder commitment that is neither the next, nor the latest one again, unchanged";
    HolderUnrevoked: "holder-unrevoked", Commitment, Always, ["policy-commitment-previous-revoked"],
        "a third commitment of the owner while two are not revoked";
    HtlcRemovedEarly: "htlc-removed-early", Commitment, Always, [],
        "a commitment of the peer without an outgoing HTLC that the owner's latest one has";
    HolderSignature: "holder-signature", Commitment, Never, ["policy-revoke-new-commitment-signed"],
        "a holder commitment without the peer's valid signatures on it and on its HTLC transactions";
    CounterpartyNumber: "counterparty-number", Commitment, Never, ["policy-commitment-retry-same"],
        "a counterparty commitment that is neither the next, nor one that was signed before, unchanged";
    CommitmentFee: "commitment-fee", Commitment, Never, ["policy-commitment-fee-range"],
        "a commitment with a fee rate that is too high for its funder, or too low to be relayed";
    Balance: "balance", Commitment, Never, [
            "policy-commitment-initial-funding-value",
            "policy-commitment-first-no-htlcs",
            "policy-commitment-payment-settled-preimage",
        ],
        "a commitment in which the owner's balance has changed by more than the HTLCs that were added, failed and fulfilled, and the fee; a          first one with HTLCs, or with less than the owner funds";
    CounterpartyUnrevoked: "counterparty-unrevoked", Commitment, Always, ["policy-commitment-previous-revoked"],
        "a third commitment for the peer while it could still broadcast two";

    RevokeBeforeValidate: "revoke-before-validate", Revocation, Always, [
            "policy-revoke-new-commitment-signed",
            "policy-revoke-new-commitment-valid",
        ],
        "a per-commitment secret of the owner before the next commitment is validated with the peer's signatures";
    RevokeSigned: "revoke-signed", Revocation, Never, ["policy-revoke-not-closed"],
        "the secret of a holder commitment that was signed for broadcast";
    RevocationOrder: "revocation-order", Revocation, Never, ["policy-commitment-previous-revoked"],
        "a peer's revocation of a commitment that is not the next to be revoked";
    RevocationSecret: "revocation-secret", Revocation, Never, ["policy-commitment-previous-revoked"],
        "a peer's revocation by a secret that is not that commitment's";

    ChannelClosing: "channel-closing", Close, Never, ["policy-revoke-not-closed"],
        "a further commitment of a channel for which a cooperative close was signed";
    CloseUnasked: "close-unasked", Close, Always, [],
        "the first signature on the owner's commitment for broadcast, or on an HTLC of it, when the owner did not ask to close the channel by \
         force, and no HTLC in it has to be claimed soon by the phone's own chain";
    CloseBalance: "close-balance", Close, Never, ["policy-mutual-value-matches-commitment", "policy-mutual-no-pending-htlcs"],
        "a cooperative close that pays less to the owner than its balance, or with HTLCs in the channel";
    CloseFee: "close-fee", Close, Never, ["policy-mutual-fee-range", "policy-sweep-fee-range"],
        "a transaction on a closed channel that costs more than the limit";
    SignRevoked: "sign-revoked", Close, Never, ["policy-commitment-holder-not-revoked"],
        "a signature on a holder commitment that is revoked or was never validated, or on an HTLC of it";
    NotOurScript: "not-our-script", Close, Never, [
            "policy-mutual-destination-allowlisted",
            "policy-sweep-destination-allowlisted",
        ],
        "the owner's output of a cooperative close, or a sweep of a closed channel, to a script that is not the owner's, or to one of \
         the owner's with an index so high (2^20 and above) that no restored wallet finds it";
    NotOurOutput: "not-our-output", Close, Never, [
            "policy-htlc-revocation-pubkey",
            "policy-htlc-to-self-delay",
            "policy-htlc-delayed-pubkey",
        ],
        "an HTLC of the owner's own commitment to somebody else, or a sweep of an output that is not the owner's";
    JusticeUnrevoked: "justice-unrevoked", Close, Always, [],
        "a justice transaction for a commitment that the peer has not revoked";

    FundingOutput: "funding-output", Onchain, Never, [
            "policy-onchain-output-scriptpubkey",
            "policy-onchain-output-match-commitment",
        ],
        "a funding transaction without the channel's funding output";
    FundingUnasked: "funding-unasked", Onchain, Never, ["policy-onchain-no-unknown-outputs", "policy-onchain-fee-range"],
        "a funding that pays somebody else too, costs more than the owner allowed, or is the second one for one opening";
    BumpOutput: "bump-output", Onchain, Never, ["policy-onchain-no-unknown-outputs"],
        "a transaction that is to pay a fee (purpose `BUMP`) and pays anybody but the owner";
    BumpUnasked: "bump-unasked", Onchain, Never, [],
        "a transaction that is to pay a fee (purpose `BUMP`), and spends no output of a commitment in force, nor of a transaction that the \
         owner wants to confirm sooner";
    FundingBeforeValidate: "funding-before-validate", Onchain, Always, ["policy-onchain-initial-commitment-countersigned"],
        "the funding of a channel before its first holder commitment is validated with the peer's signatures";
    NotOurInput: "not-our-input", Onchain, Never, ["policy-onchain-funding-non-malleable"],
        "a PSBT with false data about its inputs, or with none that is the phone's to sign; for a funding or a payment, one with an \
         input of somebody else, or whose txid can still change";
    SendUnasked: "send-unasked", Onchain, Never, ["policy-onchain-no-unknown-outputs", "policy-onchain-fee-range"],
        "a payment on chain as such (purpose `SEND`) to an address, of an amount or with a fee that the owner did not ask for, or a \
         second one for one request";

    PaymentUnasked: "payment-unasked", Payment, Never, ["policy-commitment-payment-approved", "policy-commitment-htlc-offered-hash-matches"],
        "an outgoing HTLC of a payment that the owner did not ask for on this phone, or that has ended";
    PaymentLimit: "payment-limit", Payment, Never, ["policy-commitment-payment-allocated"],
        "outgoing HTLCs of a payment that are together above its amount and fee limit";

    PaymentFar: "payment-far", Payment, Never, [],
        "an outgoing HTLC that expires more than 2,016 blocks from now";

    SpendLimit: "spend-limit", Payment, Never, ["policy-generic-velocity"],
        "a payment by the owner, or by a program in the owner's name, that is above what may be spent in an hour, a day or at once";

    OnionForeign: "onion-foreign", Payment, Never, [],
        "an onion that was not made for the owner's node and its HTLC's payment hash, or that cannot be read";
    OnionForward: "onion-forward", Payment, Never, [],
        "an onion by which its HTLC is to be forwarded: the owner's node is the last hop of its payments";
    PointReused: "point-reused", Payment, Never, [],
        "the secret of an onion by a point that was used in a handshake, or of a handshake by an onion's";
    PreimageUnknown: "preimage-unknown", Payment, Never, [],
        "a preimage that the phone did not make, or whose invoice it did not sign";
    PreimageNotCommitted: "preimage-not-committed", Payment, Sometimes, [],
        "a preimage before its HTLCs are irrevocably committed on both sides; for good when they are dust";
    PreimageUnderpaid: "preimage-underpaid", Payment, Sometimes, [],
        "a preimage for less than its invoice asks, or than the payer sends in all; for good when the rest is dust";
    PreimageOnion: "preimage-onion", Payment, Never, [],
        "a preimage for HTLCs whose onions the phone has not read, or that do not have the payment secret of the invoice";
    AnyAmount: "any-amount", Payment, Never, [],
        "an invoice without an amount, which a host on the payment's way could take a part of, or its preimage for more than the owner \
         allows for such invoices";
    PreimageExpired: "preimage-expired", Payment, Never, [],
        "a preimage for a payment that came after its invoice had expired";
    InvoiceMismatch: "invoice-mismatch", Payment, Never, [],
        "an invoice with another network, amount, payment hash, payment secret, payee, description, expiry or date than the owner asked for, or with an \
         on-chain address, payment metadata or an unusual final expiry delta";
    InvoiceHint: "invoice-hint", Payment, Never, [],
        "an invoice with a route hint from a node with which the owner has no channel that is proven to be in the chain, and not closed";

    PreimageUnproven: "preimage-unproven", Payment, Sometimes, [],
        "a preimage for HTLCs in a channel whose funding is not proven to be in the chain, or not deep enough there; for good when the \
         channel was closed by a commitment without them";
    PreimageUnwatched: "preimage-unwatched", Payment, Always, [],
        "a preimage for HTLCs in a channel of which the owner's second source has not just said that it is open; without such a source, \
         for a large payment (`filters_from_sat`), in a channel that the filters of the blocks up to the newest one do not show to be open";
    PreimageLate: "preimage-late", Payment, Never, [],
        "a preimage for HTLCs that expire too soon to be claimed on chain: within 39 blocks";
    GossipNetwork: "gossip-network", Gossip, Never, [],
        "gossip of another network, or with features of more than 255 bytes: such a message could be read as a statement that the node \
         has signed";
    GossipUnasked: "gossip-unasked", Gossip, Never, [],
        "the announcement of a channel that the owner opened without, of one that is not the owner's, or of the owner's node";

    HandshakeAct: "handshake-act", Handshake, Never, [],
        "the secret of a handshake with a peer that dials, when its Act One does not show that the peer has that secret";
    HandshakePeer: "handshake-peer", Handshake, Never, [],
        "the secret of a handshake with a peer that the node dials, with which the owner has no channel and did not ask for one or for a \
         connection, and which is not the host's hub";
    HandshakePace: "handshake-pace", Handshake, Always, [],
        "the secrets of more than 512 handshakes at once with peers that the node dials, or of more than one in four seconds after these";

    Headers: "headers", Chain, Sometimes, [],
        "block headers that do not follow from those that the phone knows, or that break the network's rules of proof of work and time";
    Proof: "proof", Chain, Sometimes, [],
        "a proof that does not show that a transaction of the channel is in a block that the phone knows: its funding, one that spends that, or \
         one that spends an output of its close";
    Filters: "filters", Chain, Sometimes, [],
        "filters of blocks that do not follow from those shown before, or that leave out what their block has";
    StaleChain: "stale-chain", Chain, Always, [],
        "what could lose money, while the newest block that the phone knows is more than two hours old: a preimage, an outgoing HTLC, \
         the setup and the funding of a channel";
}

impl Rule {
    /// The stable name, as it stands in a refusal.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The subject.
    pub const fn kind(self) -> Kind {
        self.row().kind
    }

    /// Whether a refused operation may be answered later.
    pub const fn retry(self) -> Retry {
        self.row().retry
    }

    /// Whether the owner may set it to warn in place of refusing. Without the others a signature could not be made, or would give the
    /// channel away.
    pub const fn may_warn(self) -> bool {
        matches!(
            self,
            Rule::SetupDelay
                | Rule::SetupUnasked
                | Rule::SetupSize
                | Rule::SetupTerms
                | Rule::FundingUnasked
                | Rule::BumpOutput
                | Rule::BumpUnasked
                | Rule::CommitmentFee
                | Rule::Balance
                | Rule::PaymentUnasked
                | Rule::PaymentLimit
                | Rule::SpendLimit
                | Rule::InvoiceHint
                | Rule::CloseUnasked
                | Rule::CloseBalance
                | Rule::CloseFee
                | Rule::GossipUnasked
                | Rule::HandshakePeer
                | Rule::HandshakePace
                | Rule::PaymentFar
                | Rule::StaleChain
        )
    }

    /// Whether its refusals are for the owner to see though the operation may be answered later: it is answered when the owner says so.
    pub const fn waits_for_the_owner(self) -> bool {
        matches!(self, Rule::CloseUnasked)
    }

    /// The tags of [VLS](https://vls.tech)'s policy list that the rule corresponds to, so that the two can be compared. Empty when
    /// there is none.
    pub const fn tags(self) -> &'static [&'static str] {
        self.row().tags
    }

    /// What it refuses, as a part of a sentence.
    pub const fn summary(self) -> &'static str {
        self.row().summary
    }

    /// The rule with this name.
    pub fn from_name(name: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.name() == name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Rule, UnknownRule> {
        Rule::from_name(name).ok_or(UnknownRule)
    }
}

/// No rule of this version has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRule;

impl fmt::Display for UnknownRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no rule of this version has this name: update this program")
    }
}

impl std::error::Error for UnknownRule {}

impl Refusal {
    /// Whether `rule` refused.
    pub fn is_by(&self, rule: Rule) -> bool {
        self.rule == rule.name()
    }

    /// See [`Rule::waits_for_the_owner`]. False of a rule that this version does not know.
    pub fn waits_for_the_owner(&self) -> bool {
        Rule::from_name(&self.rule).is_some_and(Rule::waits_for_the_owner)
    }
}
