//! Waiting for a condition that others bring about: one loop, on tokio's clock, whether that is real, paused or simulated.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long a condition is waited for, and how often it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The condition does not take this long unless something hangs.
    pub longest: Duration,
    /// Between the first two checks.
    pub first_pause: Duration,
    /// Each pause is half as long again as the one before, up to this.
    pub longest_pause: Duration,
}

/// The condition was still not met after the longest time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited {seconds} s and still not: {what}")]
pub struct Late {
    /// The condition.
    pub what: String,
    /// How long it was waited for.
    pub seconds: u64,
}

impl Patience {
    /// For a real clock.
    pub const REAL: Patience = Patience::constant(60, 5);
    /// For tokio's paused clock, on which waiting costs nothing and timeouts of minutes pass at once.
    pub const VIRTUAL: Patience = Patience::constant(600, 20);

    const fn constant(longest_s: u64, pause_ms: u64) -> Patience {
        Patience {
            longest: Duration::from_secs(longest_s),
            first_pause: Duration::from_millis(pause_ms),
            longest_pause: Duration::from_millis(pause_ms),
        }
    }

    /// Asks again and again until there is an answer.
    ///
    /// # Errors
    /// The first error of `ask`, and [`Late`].
    pub async fn until<T, E: From<Late>>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let asking = async {
            let mut pauses = self.pauses();
            loop {
                if let Some(answer) = ask().await? {
                    return Ok(answer);
                }
                pauses.pass().await;
            }
        };
        self.in_time(what, asking).await?
    }

    /// Waits for work, and not for ever.
    ///
    /// # Errors
    /// [`Late`].
    pub async fn in_time<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, Late> {
        let late = |_| Late {
            what: what.to_owned(),
            seconds: self.longest.as_secs(),
        };
        timeout(self.longest, work).await.map_err(late)
    }

    /// The pauses between two checks, for a loop that ends otherwise.
    pub fn pauses(&self) -> Pauses {
        Pauses {
            next: self.first_pause,
            longest: self.longest_pause,
        }
    }

    /// For tests: waits until a condition is met.
    ///
    /// # Panics
    /// When it is not met in time.
    pub async fn expect(&self, what: &str, mut is_met: impl AsyncFnMut() -> bool) {
        let met = self.until(what, async || Ok(is_met().await.then_some(())));
        if let Err(late) = met.await {
            let late: Late = late;
            panic!("{late}");
        }
    }
}

/// See [`Patience::pauses`].
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Waits for the next pause.
    pub async fn pass(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 3 / 2).min(self.longest);
    }
}

/// For tests on a real clock: waits until a condition is met.
///
/// # Panics
/// When it is not met in a minute.
pub async fn until(what: &str, is_met: impl AsyncFnMut() -> bool) {
    Patience::REAL.expect(what, is_met).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_checked_at_ever_longer_pauses_until_it_is_met() {
        let patience = Patience {
            longest: Duration::from_secs(10),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_millis(400),
        };
        let begun = Instant::now();
        let mut checked_ms = Vec::new();
        let met = patience.until("three checks", async || {
            checked_ms.push(begun.elapsed().as_millis());
            Ok::<_, Late>((checked_ms.len() == 4).then_some("met"))
        });
        assert_eq!(met.await, Ok("met"));
        assert_eq!(checked_ms, [0, 200, 500, 900]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_is_not_met_is_named_also_when_its_check_hangs() {
        let late = Late {
            what: "the end".into(),
            seconds: 600,
        };
        let never = async || Ok::<Option<()>, Late>(None);
        assert_eq!(
            Patience::VIRTUAL.until("the end", never).await,
            Err(late.clone())
        );
        let hangs = async || std::future::pending::<Result<Option<()>, Late>>().await;
        assert_eq!(Patience::VIRTUAL.until("the end", hangs).await, Err(late));
    }
}
