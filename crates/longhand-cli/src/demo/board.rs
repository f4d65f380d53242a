//! The table of the live view, kept up to date during the demo.

use std::sync::Arc;
use std::time::Duration;

use longhand_host::client::Client;
use longhand_proto::operator::{HubBalanceRequest, ListNodesRequest};
use longhand_testkit::operator::OperatorClient;
use tokio::task::JoinSet;

use super::view::{Holdings, View};

const PAUSE: Duration = Duration::from_millis(250);

/// Polls the host until it is dropped.
pub(super) struct Board(#[expect(dead_code, reason = "ends its task when dropped")] JoinSet<()>);

impl Board {
    /// Shows nothing when the view is not live.
    pub fn start(view: &Arc<View>, operator: &OperatorClient) -> Board {
        let mut tasks = JoinSet::new();
        if view.is_live() {
            let (view, operator) = (Arc::clone(view), operator.clone());
            tasks.spawn(async move {
                loop {
                    // While the host is away the table stays as it was.
                    if let Ok(client) = operator.client()
                        && let Ok(holdings) = holdings(client).await
                    {
                        view.show(&holdings);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Board(tasks)
    }
}

/// The balances of the hub and all owners, as the host reports them.
pub(super) async fn holdings(mut host: Client) -> Result<Vec<Holdings>, tonic::Status> {
    let hub = host.hub_balance(HubBalanceRequest {}).await?.into_inner();
    let nodes = host
        .list_nodes(ListNodesRequest {})
        .await?
        .into_inner()
        .nodes;
    let hub = Holdings {
        name: "hub".into(),
        state: String::new(),
        onchain_sat: hub.onchain_confirmed_sat + hub.onchain_pending_sat,
        lightning_sat: hub.lightning_msat / 1_000,
        closing_sat: hub.closing_sat,
    };
    let owners = nodes.into_iter().map(|node| Holdings {
        name: node.owner,
        state: node.state,
        onchain_sat: node.onchain_sat + node.onchain_pending_sat,
        lightning_sat: node.lightning_msat / 1_000,
        closing_sat: node.closing_sat,
    });
    Ok(std::iter::once(hub).chain(owners).collect())
}
