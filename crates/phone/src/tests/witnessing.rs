//! Answers of the signer that are reported to a witness, and the moment in which they count as sent.

use super::dying::{Trap, open, paired_vault};
use super::signing::{ask, setup};
use super::*;
use crate::testing::{DiskFate, DiskWrite};
use crate::witness::{Said, Witness};

#[derive(Default)]
struct Notes(Mutex<Answers>);

/// Answers that were made, with the version that has to be durable first, and those that count as sent.
#[derive(Default)]
struct Answers {
    made: Vec<(u64, String)>,
    said: Vec<String>,
}

impl Notes {
    fn said(&self) -> Vec<String> {
        self.0.lock().unwrap().said.clone()
    }
}

impl Witness for Notes {
    fn made(&self, said: Said<'_>, version: u64) {
        let said = match said {
            Said::Answer(_, answer) => format!("{answer:?}"),
            Said::Invoice { amount_msat, .. } => format!("an invoice over {amount_msat}"),
        };
        self.0.lock().unwrap().made.push((version, said));
    }
    fn durable(&self, version: u64) {
        let answers = &mut *self.0.lock().unwrap();
        let now = answers.made.extract_if(.., |made| made.0 <= version);
        answers.said.extend(now.map(|(_, said)| said));
    }
    fn restored(&self, version: u64) {
        self.durable(version);
        self.0.lock().unwrap().made.clear();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_phone_said_before_it_died_is_known_by_what_it_comes_back_with() {
    use DiskFate::{PowerGoneAfter, PowerGoneBefore, PowerGoneTorn};
    use DiskWrite::{HeadRaise, LedgerAppend};
    // A write and its fate, and whether the answer counts as sent.
    let cases = [
        (LedgerAppend, PowerGoneBefore, false),
        (LedgerAppend, PowerGoneTorn { written: 50 }, false),
        (LedgerAppend, PowerGoneAfter, true),
        (HeadRaise, PowerGoneBefore, true),
    ];
    for (at, fate, counts) in cases {
        let story = format!("{at:?}, {fate:?}");
        let host = scripted_host();
        let dir = paired_vault(&host).await;
        let notes = Arc::new(Notes::default());
        let trap = Trap::new(at, fate);
        let vault = open_on(trap.clone(), dir.path());
        let vault = vault.with_witness(notes.clone());
        let phone = start(vault, ToHost(Arc::clone(&host))).unwrap();
        phone.attach().await.unwrap();
        host.link(2).await;
        let setup = setup(&host).await;
        let before = notes.said();
        assert_eq!(before.len(), 1, "{story}");
        trap.set(phone);
        ask(&host, &setup).await.unwrap_err();
        assert_eq!(notes.said(), before, "{story}");

        let vault = open(&dir).with_witness(notes.clone());
        let phone = start(vault, ToHost(Arc::clone(&host))).unwrap();
        assert_eq!(
            notes.said().len() - before.len(),
            usize::from(counts),
            "{story}"
        );
        phone.attach().await.unwrap();
        host.link(3).await;
        ask(&host, &setup).await.unwrap();
        let again = usize::from(counts) + 1;
        assert_eq!(notes.said().len() - before.len(), again, "{story}");
        phone.detach().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_invoice_is_reported_when_it_is_on_record() {
    let host = scripted_host();
    let dir = paired_vault(&host).await;
    let notes = Arc::new(Notes::default());
    let vault = open(&dir).with_witness(notes.clone());
    let phone = start(vault, ToHost(Arc::clone(&host))).unwrap();
    phone.attach().await.unwrap();
    phone.invoice(Some(7_000), "coffee", 600).await.unwrap();
    assert_eq!(notes.said(), ["an invoice over 7000"]);
    phone.detach().await.unwrap();
}
