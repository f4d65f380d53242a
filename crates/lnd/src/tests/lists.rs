//! Pages of invoices, as apps walk through them.

use super::*;
use crate::node::{Page, index_of, position_of};
use crate::proto::lnrpc::{AddInvoiceResponse, Invoice, ListInvoiceRequest, ListInvoiceResponse};

const LIST: &str = "lnrpc.Lightning/ListInvoices";

async fn with_invoices(count: usize) -> (World, Vec<u64>) {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..count {
        let add = world
            .one("lnrpc.Lightning/AddInvoice", Invoice::default())
            .await;
        let added: AddInvoiceResponse = add.unwrap();
        made.push(added.add_index);
    }
    assert!(made.is_sorted());
    (world, made)
}

async fn indexes(world: &World, asked: ListInvoiceRequest) -> (Vec<u64>, u64, u64) {
    let page: ListInvoiceResponse = world.one(LIST, asked).await.unwrap();
    let indexes = page.invoices.iter().map(|it| it.add_index).collect();
    (indexes, page.first_index_offset, page.last_index_offset)
}

#[tokio::test]
async fn pages_go_through_all_in_both_directions() {
    let (world, made) = with_invoices(7).await;
    let page = |index_offset, reversed| ListInvoiceRequest {
        index_offset,
        reversed,
        num_max_invoices: 3,
        ..ListInvoiceRequest::default()
    };
    let (mut forward, mut offset) = (Vec::new(), 0);
    loop {
        let (found, _, last) = indexes(&world, page(offset, false)).await;
        if found.is_empty() {
            break;
        }
        forward.extend(found);
        offset = last;
    }
    assert_eq!(forward, made);
    let (newest, first, _) = indexes(&world, page(0, true)).await;
    assert_eq!(newest, made[4..]);
    let (before, first, _) = indexes(&world, page(first, true)).await;
    assert_eq!(before, made[1..4]);
    let (oldest, ..) = indexes(&world, page(first, true)).await;
    assert_eq!(oldest, made[..1]);
}

#[tokio::test]
async fn dates_bound_a_page() {
    let (world, made) = with_invoices(5).await;
    let second = |index: u64| position_of(index).0;
    let asked = ListInvoiceRequest {
        creation_date_start: second(made[1]),
        creation_date_end: second(made[3]),
        ..ListInvoiceRequest::default()
    };
    assert_eq!(indexes(&world, asked).await.0, made[1..4]);
}

#[test]
fn an_index_is_a_place_in_the_history() {
    let hash = [0xff; 32];
    let index = index_of(1_790_000_000, &hash);
    assert!(index < 1 << 53);
    let (unix_s, from) = position_of(index);
    assert!((unix_s, from) <= (1_790_000_000, hash));
    assert_eq!(index_of(unix_s, &from), index);
    assert!(index_of(1_790_000_001, &[0; 32]) > index);
    assert_eq!(index_of(u64::MAX, &[0; 32]) >> 20, u64::MAX >> 20);
}

#[test]
fn a_page_is_never_longer_than_a_node_gives() {
    let listing = |limit| crate::calls::page_for_test(limit);
    let limits = [0, 1, 500, 501, u64::MAX].map(|limit| listing(limit).limit);
    assert_eq!(limits, [100, 1, 500, 500, 500]);
    let Page { newest_first, .. } = listing(0);
    assert!(newest_first, "an app that wants all sees the newest");
}
