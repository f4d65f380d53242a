//! Approval: before the phone records what its owner wants to spend, it asks whoever is to decide: a person through an app, or the
//! rules of a machine that nobody watches. Without an approver, whoever may give the phone commands decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use serde::Deserialize;

/// What the owner would be recorded to want.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// A payment over Lightning.
    Pay {
        /// Its payment hash.
        payment_hash: [u8; 32],
        /// The amount, without fees.
        amount_msat: u64,
        /// The most that routing may cost.
        max_fee_msat: u64,
    },
    /// A payment on chain.
    SendOnchain {
        /// The payee's address.
        address: String,
        /// The amount; 0 = the whole balance.
        amount_sat: u64,
        /// The most that mining may cost.
        max_fee_sat: u64,
    },
    /// The opening of a channel.
    Open {
        /// The peer.
        peer: PublicKey,
        /// Its capacity.
        amount_sat: u64,
        /// Whether it is announced (BOLT 7).
        announced: bool,
    },
    /// The close of a channel.
    Close {
        /// The channel's id.
        channel_id: Vec<u8>,
        /// Without the peer.
        force: bool,
        /// Where the owner's part goes; empty = the on-chain wallet.
        address: String,
    },
}

/// A wish that is not granted, and the reason for a person. Nothing was recorded and nothing sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// Decides about wishes. It may take its time: an app asks its user.
#[async_trait]
pub trait Approve: Send + Sync {
    /// Grants the wish, or says why not. The same wish may be asked again, after a command that broke off.
    async fn approve(&self, wish: &Wish) -> Result<(), Denied>;

    /// The same for a wish that comes from an app of the owner's, by its name. An app is not the owner: without an approver that
    /// decides about apps, all is denied.
    async fn approve_for_app(&self, app: &str, wish: &Wish) -> Result<(), Denied> {
        let _ = (app, wish);
        Err(no_apps())
    }
}

/// Nobody decides about the wishes of apps.
pub(crate) fn no_apps() -> Denied {
    Denied("nobody decides on this phone about what apps ask for: run it in a terminal, or allow app_pay_sat".into())
}

/// Limits of single wishes, for a phone that nobody watches. What is not named is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowances {
    /// The largest payment over Lightning, with its fee limit.
    pub pay_sat: u64,
    /// The largest payment on chain, without its fee. The whole balance is denied.
    pub send_onchain_sat: u64,
    /// The largest channel that is opened.
    pub open_sat: u64,
    /// Whether channels are closed, to the on-chain wallet.
    pub close: bool,
    /// The largest payment over Lightning that an app asks for, with its fee limit.
    pub app_pay_sat: u64,
    /// The largest payment on chain that an app asks for, without its fee.
    pub app_send_onchain_sat: u64,
}

#[async_trait]
impl Approve for Allowances {
    async fn approve(&self, wish: &Wish) -> Result<(), Denied> {
        let within = |what: &str, sat: u64, limit_sat: u64| match sat <= limit_sat {
            true => Ok(()),
            false => Err(Denied(format!(
                "{what} of {sat} sat is above the {limit_sat} sat that are allowed without a person"
            ))),
        };
        match wish {
            Wish::Pay {
                amount_msat,
                max_fee_msat,
                ..
            } => {
                let all_msat = amount_msat.saturating_add(*max_fee_msat);
                within(
                    "a payment with its fee limit",
                    all_msat.div_ceil(1_000),
                    self.pay_sat,
                )
            }
            Wish::SendOnchain { amount_sat: 0, .. } => Err(Denied(
                "sending the whole balance is not allowed without a person".into(),
            )),
            Wish::SendOnchain { amount_sat, .. } => {
                within("a payment on chain", *amount_sat, self.send_onchain_sat)
            }
            Wish::Open { amount_sat, .. } => within("a channel", *amount_sat, self.open_sat),
            Wish::Close { address, .. } if self.close && address.is_empty() => Ok(()),
            Wish::Close { .. } => Err(Denied("this close is not allowed without a person".into())),
        }
    }

    async fn approve_for_app(&self, _: &str, wish: &Wish) -> Result<(), Denied> {
        let for_apps = Allowances {
            pay_sat: self.app_pay_sat,
            send_onchain_sat: self.app_send_onchain_sat,
            ..Allowances::default()
        };
        for_apps.approve(wish).await
    }
}

/// The approver of a phone, if it has one.
#[derive(Default)]
pub(crate) struct Approver(Mutex<Option<Arc<dyn Approve>>>);

impl Approver {
    pub fn set(&self, approver: Arc<dyn Approve>) {
        *self.lock() = Some(approver);
    }

    pub fn get(&self) -> Option<Arc<dyn Approve>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn Approve>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
