//! A client without use sleeps: it then keeps no circuits and loads no directory, which would cost a phone its battery.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

/// Without use for so long a client sleeps.
const AWAKE: Duration = Duration::from_secs(30);

/// Counts those who use a client.
#[derive(Clone, Debug)]
pub(super) struct Users(Arc<watch::Sender<usize>>);

impl Users {
    pub fn none() -> Users {
        Users(Arc::new(watch::Sender::new(0)))
    }

    /// One more, until it is dropped.
    pub fn enter(&self) -> Use {
        self.0.send_modify(|count| *count += 1);
        Use(Arc::clone(&self.0))
    }

    /// How many there are, from now on.
    pub fn count(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }

    /// Calls `sleep` with `true` when nobody was there for a while, and with `false` when somebody is again; until the client, of
    /// which `sleep` returns whether it is there, is gone.
    pub fn watch(&self, sleep: impl Fn(bool) -> bool + Send + 'static) {
        let mut count = self.0.subscribe();
        let users: Weak<watch::Sender<usize>> = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                // Ends with the last `Users`: the sender is gone.
                if count.wait_for(|count| *count == 0).await.is_err() {
                    return;
                }
                tokio::select! {
                    used = count.wait_for(|count| *count > 0) => match used {
                        Ok(_) => continue,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(AWAKE) => {}
                }
                if users.strong_count() == 0 || !sleep(true) {
                    return;
                }
                if count.wait_for(|count| *count > 0).await.is_err() || !sleep(false) {
                    return;
                }
            }
        });
    }
}

/// A use of a client: while there is one it does not sleep.
#[derive(Debug)]
pub struct Use(Arc<watch::Sender<usize>>);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_sleeps_after_its_last_use_and_wakes_with_the_next() {
        let users = Users::none();
        let (slept, mut states) = mpsc::unbounded_channel();
        users.watch(move |sleeps| slept.send(sleeps).is_ok());
        let (first, second) = (users.enter(), users.enter());
        drop(first);
        assert!(
            tokio::time::timeout(AWAKE * 2, states.recv())
                .await
                .is_err()
        );
        drop(second);
        assert_eq!(states.recv().await, Some(true));
        let third = users.enter();
        assert_eq!(states.recv().await, Some(false));
        drop(third);
        drop(users);
        assert_eq!(states.recv().await, None);
    }
}
