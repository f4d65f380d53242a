//! The host's search for the coins of restored words, as a bar on a terminal.

use std::future::Future;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use longhand_phone::command::Info;
use longhand_phone::{ErrorReport, Phone};

use super::show::{Back, grouped};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Blocks, as a bar counts them.
#[derive(Debug, PartialEq, Eq)]
struct Blocks {
    searched: u64,
    all: u64,
}

impl Blocks {
    fn of(info: &Info) -> Blocks {
        let before = info.scan_from_height.saturating_sub(1);
        Blocks {
            searched: info.scanned_height.saturating_sub(before).into(),
            all: info.scan_target_height.saturating_sub(before).into(),
        }
    }
}

/// Shows the search until it is complete; `None` when `stopped` is first, and the host goes on by itself. A host from before
/// the search existed has none, and is not waited for.
pub(super) async fn follow(
    phone: &Phone,
    stopped: impl Future<Output = ()>,
) -> Result<Option<Back>, ErrorReport> {
    let bar = ProgressBar::new(0).with_style(style());
    tokio::pin!(stopped);
    loop {
        let info = phone.info().await?;
        if info.scan_target_height == 0 {
            bar.finish_and_clear();
            let note = "this host does not search for the coins of restored words: ask its operator for a newer version";
            eprintln!("warning[NOT_SEARCHED]: {note}");
            return Ok(None);
        }
        show(&bar, &info);
        if info.scanned_height >= info.scan_target_height {
            bar.finish_and_clear();
            let balance = phone.balance().await?;
            return Ok(Some(Back {
                onchain_sat: balance
                    .onchain_confirmed_sat
                    .saturating_add(balance.onchain_pending_sat),
            }));
        }
        tokio::select! {
            () = &mut stopped => {
                bar.abandon();
                eprintln!("the host goes on with it: `longhand phone info` shows how far it is");
                return Ok(None);
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn show(bar: &ProgressBar, info: &Info) {
    let Blocks { searched, all } = Blocks::of(info);
    bar.set_length(all);
    bar.set_position(searched);
    bar.set_message(match info.scan_problem.as_str() {
        "" => format!(
            "block {} of {}",
            grouped(info.scanned_height.into()),
            grouped(info.scan_target_height.into())
        ),
        problem => problem.to_owned(),
    });
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("searching for coins {wide_bar} {percent} %  {msg}  {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_counts_from_the_first_block_of_the_search() {
        let info = |scanned_height| Info {
            node_id: String::new(),
            network: String::new(),
            state: String::new(),
            block_height: 200,
            hub_node_id: String::new(),
            channels: 0,
            usable_channels: 0,
            peers: 0,
            host_version: String::new(),
            signer_batches: 0,
            signer_ops: 0,
            scanned_height,
            scan_target_height: 200,
            scan_from_height: 101,
            scan_problem: String::new(),
        };
        let blocks = |searched| Blocks { searched, all: 100 };
        // 0 while the host looks for the height of a date.
        assert_eq!(Blocks::of(&info(0)), blocks(0));
        assert_eq!(Blocks::of(&info(100)), blocks(0));
        assert_eq!(Blocks::of(&info(150)), blocks(50));
        assert_eq!(Blocks::of(&info(200)), blocks(100));
    }
}
