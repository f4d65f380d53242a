//! The types of LDK's chain monitor and channel manager in this crate.

use std::sync::Arc;

use lightning::onion_message::messenger::NullMessageRouter;

use crate::graph::Router;
use crate::keys::{ChannelSigner, KeyRing};
use crate::ldk::adapters::{Broadcaster, Fees, Filter};
use crate::ldk::logger::Logger;
use crate::ldk::persister::Persister;

pub(crate) type ChainMonitor = lightning::chain::chainmonitor::ChainMonitor<
    ChannelSigner,
    Arc<Filter>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Logger>,
    Arc<Persister>,
    Arc<KeyRing>,
>;

pub(crate) type ChannelManager = lightning::ln::channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<Broadcaster>,
    Arc<KeyRing>,
    Arc<KeyRing>,
    Arc<KeyRing>,
    Arc<Fees>,
    Arc<Router<Arc<KeyRing>>>,
    Arc<NullMessageRouter>,
    Arc<Logger>,
>;
