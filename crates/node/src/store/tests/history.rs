#![allow(clippy::unwrap_used)]

use longhand_store::{Batch, MemoryStore};

use super::*;

fn payment(created_unix_s: u64, number: u8) -> Payment {
    Payment {
        payment_hash: vec![number; 32],
        created_unix_s,
        ..Payment::default()
    }
}

/// A store whose history has these payments.
async fn store(payments: &[Payment]) -> MemoryStore {
    let (store, journal) = (MemoryStore::new(), Journal::default());
    for payment in payments {
        add(&journal, payment);
    }
    commit(&store, &journal).await;
    store
}

async fn commit(store: &MemoryStore, journal: &Journal) {
    let batch = Batch {
        namespace: "node".into(),
        epoch: 0,
        writes: journal.take(),
    };
    store.commit(batch).await.unwrap();
}

async fn page(store: &MemoryStore, before: &[u8], limit: u32, live: &[Payment]) -> Payments {
    let page = Page {
        before: Position::from_bytes(before),
        limit,
        live: live.to_vec(),
    };
    match answer(store, "node", Read::Page(page)).await {
        Ok(Reply::Payments(payments)) => payments,
        other => panic!("no page: {other:?}"),
    }
}

fn times(page: &Payments) -> Vec<u64> {
    let payments = page.payments.iter();
    payments.map(|payment| payment.created_unix_s).collect()
}

#[tokio::test]
async fn pages_go_from_the_newest_payment_to_the_oldest_and_miss_none() {
    let payments: Vec<Payment> = [(5, 1), (300, 2), (70, 3), (70, 4), (6, 5)]
        .map(|(time, number)| payment(time, number))
        .into();
    let store = store(&payments).await;
    let live = [payment(200, 6), payment(1, 7)];
    let (mut seen, mut before) = (Vec::new(), Vec::new());
    loop {
        let page = page(&store, &before, 2, &live).await;
        assert!(page.payments.len() <= 2);
        seen.extend(times(&page));
        before = page.next;
        if before.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [300, 200, 70, 70, 6, 5, 1]);
}

#[tokio::test]
async fn a_page_ends_before_it_is_larger_than_a_link_carries() {
    let payments = (1..=40).map(|number| Payment {
        bolt11: "x".repeat(100_000),
        ..payment(u64::from(number), number)
    });
    let store = store(&payments.collect::<Vec<_>>()).await;
    let first = page(&store, &[], MOST_PER_PAGE, &[]).await;
    assert!(first.encoded_len() < 2 * MOST_BYTES && !first.payments.is_empty());
    let second = page(&store, &first.next, MOST_PER_PAGE, &[]).await;
    let last_of_first = times(&first).last().copied();
    assert_eq!(
        times(&second).first().copied(),
        last_of_first.map(|it| it - 1)
    );
}

#[tokio::test]
async fn one_payment_is_found_by_its_hash_until_it_is_taken_out() {
    let known = payment(7, 1);
    let store = store(std::slice::from_ref(&known)).await;
    let found = async |number| {
        let hash = PaymentHash([number; 32]);
        find(&store, "node", &hash).await.unwrap()
    };
    assert_eq!(found(1).await, Some(known.clone()));
    assert_eq!(found(2).await, None);
    let journal = Journal::default();
    remove(&journal, &known);
    commit(&store, &journal).await;
    assert_eq!(found(1).await, None);
    assert!(page(&store, &[], 9, &[]).await.payments.is_empty());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_an_error_and_no_missing_payment() {
    let journal = Journal::default();
    journal.put(hash_key(&[1; 32]), vec![1, 2, 3]);
    let store = MemoryStore::new();
    commit(&store, &journal).await;
    let found = find(&store, "node", &PaymentHash([1; 32])).await;
    assert!(matches!(found, Err(StoreError::Corrupt(_))), "{found:?}");
}
