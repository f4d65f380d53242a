//! Conditions that must hold once all is quiet.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use longhand_phone::command::{Payment, PaymentState};
use longhand_testkit::KitError;
use longhand_testkit::processes::World;

use super::payments::{Answer, End, Tried, hub_pays, judge, moved_msat};
use super::plan::Who;
use super::setup::Setup;

/// Time limit until all is quiet, from when the last process is back.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// A phone that gets no signer batch for this long has nothing more to do.
const QUIET: Duration = Duration::from_millis(600);

/// Results of a check.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub succeeded: u32,
    pub failed: u32,
    /// Errors that the payers of those that failed got, and how often.
    pub because: BTreeMap<String, u32>,
    /// Payments that did not end, or not the same way on both sides.
    pub lost: Vec<String>,
    /// Closes that nobody asked for.
    pub closes: Vec<String>,
    /// Satoshis that are not where they have to be, and a line for each difference.
    pub unaccounted_sat: u64,
    pub unaccounted: Vec<String>,
    /// Nodes that were loaded again after a panic.
    pub panics: u32,
}

/// Waits until every phone is attached, every channel usable, and nothing under way.
///
/// # Errors
/// When something is not quiet after two minutes: which.
pub(super) async fn wait_until_quiet(world: &World) -> Result<(), KitError> {
    let began = Instant::now();
    let mut since = Instant::now();
    let mut last = None;
    loop {
        let now = at_rest(world).await;
        if now.is_err() || last.as_ref() != Some(&now) {
            since = Instant::now();
        } else if since.elapsed() >= QUIET {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let why = now.err().unwrap_or_else(|| "phones are still asked".into());
            let seconds = PATIENCE.as_secs();
            return Err(KitError::Unexpected(format!(
                "not quiet after {seconds} s: {why}"
            )));
        }
        last = Some(now);
        tokio::time::sleep(POLL).await;
    }
}

/// Number of signer batches so far, when nothing is under way; otherwise the thing that is.
async fn at_rest(world: &World) -> Result<u64, String> {
    let mut batches = 0;
    for phone in &world.phones {
        let name = &phone.name;
        let text = |error: KitError| format!("{name}: {error}");
        let node = world.host.node(name).await.map_err(text)?;
        if node.state != "active" || node.usable_channels != 1 {
            return Err(format!(
                "{name}'s node is {} with {} usable channels",
                node.state, node.usable_channels
            ));
        }
        batches += node.signer_batches;
        for channel in phone.channels().await.map_err(text)? {
            if !channel.usable || channel.pending_htlcs > 0 {
                return Err(format!(
                    "{name}'s channel is {} with {} HTLCs under way",
                    channel.state, channel.pending_htlcs
                ));
            }
        }
        let payments = phone.payments().await.map_err(text)?;
        let pending = |p: &&Payment| p.outbound && p.state == PaymentState::Pending;
        if let Some(pending) = payments.iter().find(pending) {
            return Err(format!(
                "{name}'s payment {} is pending",
                pending.payment_hash
            ));
        }
    }
    let channels = world.host.hub_channels().await;
    match channels
        .map_err(|e| e.to_string())?
        .iter()
        .all(|c| c.usable)
    {
        true => Ok(batches),
        false => Err("the hub has a channel that is not usable".into()),
    }
}

/// Compares the payments, channels and coins of all parties with each other; results go into `checked`. When it is not
/// quiet, money is under way: then only closes and payments are checked.
///
/// # Errors
/// When a process does not answer; results before that stay.
pub(super) async fn check(
    setup: &Setup,
    tried: &mut [Tried],
    is_quiet: bool,
    checked: &mut Checked,
) -> Result<(), KitError> {
    checked.add_closes(setup).await?;
    let mut books = Vec::new();
    for phone in &setup.world.phones {
        books.push(Book::new(phone.payments().await?));
    }
    let side = |who: Who, outbound, hash: &str| match who {
        Who::Hub => None,
        Who::Phone(number) => Some(books[number].get(outbound, hash)),
    };
    for tried in tried {
        if let Some(answer) = known_end(&setup.world, tried).await {
            tried.answer = answer;
        }
        let payer = side(tried.order.payer, true, &tried.hash);
        let payee = side(tried.order.payee, false, &tried.hash);
        let ended = judge(tried, payer, payee);
        match ended.and_then(|end| tried.ends(end)) {
            Ok(End::Succeeded) => checked.succeeded += 1,
            Ok(End::Failed) => {
                checked.failed += 1;
                *checked.because.entry(tried.answer.line()).or_default() += 1;
            }
            Err(off) => checked.lost.push(off),
        }
    }
    if !is_quiet {
        return Ok(());
    }
    for (number, book) in books.iter().enumerate() {
        checked.add_phone(setup, number, book).await?;
    }
    checked.add_coins(setup).await
}

impl Checked {
    /// A phone's outbound amount is that of the beginning, changed by what its payments have moved.
    async fn add_phone(
        &mut self,
        setup: &Setup,
        number: usize,
        book: &Book,
    ) -> Result<(), KitError> {
        let phone = &setup.world.phones[number];
        let node = setup.world.host.node(&phone.name).await?;
        self.panics += node.restarts_after_panic;
        let channels = phone.channels().await?;
        let found: u64 = channels.iter().map(|channel| channel.outbound_msat).sum();
        let (received, sent) = moved_msat(book.0.values());
        let expected = (setup.began_msat[number] + received).saturating_sub(sent);
        if found != expected {
            self.unaccounted_sat += found.abs_diff(expected).div_ceil(1_000);
            self.unaccounted.push(format!(
                "{} can send {found} msat, and by its payments {expected} msat",
                phone.name
            ));
        }
        Ok(())
    }

    async fn add_closes(&mut self, setup: &Setup) -> Result<(), KitError> {
        let books = setup.world.books(&setup.fundings).await?;
        let closes = books.commitments().chain(books.cooperative_closes());
        self.closes.extend(closes.map(|spend| {
            let (txid, kind) = (spend.txid, spend.kind);
            format!("{txid} closes a channel ({kind:?}), and nobody asked for it")
        }));
        Ok(())
    }

    /// Every coin is in a wallet or an open channel that reports it.
    async fn add_coins(&mut self, setup: &Setup) -> Result<(), KitError> {
        let books = setup.world.books(&setup.fundings).await?;
        let wallets_sat = setup.world.wallets_sat().await?;
        let open = setup.world.open_channels().await?;
        if let Err(off) = books.balance(wallets_sat, &open) {
            self.unaccounted_sat += off.sat;
            self.unaccounted.extend(off.lines);
        }
        Ok(())
    }
}

/// The end of a payment by the hub whose answer was lost: the hub has no books, but can be asked again.
async fn known_end(world: &World, tried: &Tried) -> Option<Answer> {
    let is_open = matches!(tried.answer, Answer::Lost(_) | Answer::Late(_));
    if tried.order.payer != Who::Hub || !is_open {
        return None;
    }
    Some(hub_pays(&world.host, &tried.bolt11).await)
}

/// One phone's payments, by direction and hash.
struct Book(HashMap<(bool, String), Payment>);

impl Book {
    fn new(payments: Vec<Payment>) -> Book {
        let keyed = payments
            .into_iter()
            .map(|payment| ((payment.outbound, payment.payment_hash.clone()), payment));
        Book(keyed.collect())
    }

    fn get(&self, outbound: bool, hash: &str) -> Option<&Payment> {
        self.0.get(&(outbound, hash.to_owned()))
    }
}
