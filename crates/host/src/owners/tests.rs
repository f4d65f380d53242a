#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_store::MemoryStore;
use longhand_store::testing::FailingStore;

use super::*;
use crate::registration::tests::registration;

const PHONE: LinkKey = LinkKey([1; 32]);
const OTHER_PHONE: LinkKey = LinkKey([2; 32]);
const EXPIRES: u64 = 1_000;

fn hub() -> NodeId {
    NodeId::from_slice(&registration(99).node_id).unwrap()
}

async fn load(store: &Arc<dyn Store>) -> Owners {
    Owners::load(store.clone(), 0, Network::Regtest, Box::new(|_| {}))
        .await
        .unwrap()
}

async fn empty() -> (Arc<dyn Store>, Owners) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let owners = load(&store).await;
    (store, owners)
}

/// An owner whose phone has paired.
async fn paired(owners: &Owners, name: &str, phone: LinkKey) -> Owner {
    let (_, secret) = owners.create(name, "", EXPIRES).await.unwrap();
    owners.pin(&secret.id(), &phone, 0).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_owner_survives_the_store_at_every_stage() {
    let (store, owners) = empty().await;
    let (_, secret) = owners
        .create("ann", "https://push.example/ann", EXPIRES)
        .await
        .unwrap();
    assert_eq!(load(&store).await.all().await, owners.all().await);
    let owner = owners.pin(&secret.id(), &PHONE, 0).await.unwrap().unwrap();
    assert_eq!(load(&store).await.all().await, owners.all().await);
    owners
        .register(&owner.id, &PHONE, registration(1), &hub())
        .await
        .unwrap();
    let reloaded = load(&store).await.all().await;
    assert_eq!(reloaded, owners.all().await);
    assert_eq!(
        reloaded[0].node_id().unwrap().serialize().to_vec(),
        registration(1).node_id
    );
    assert!(reloaded[0].is_confirmed());
}

#[tokio::test]
async fn a_code_is_open_then_used_by_one_phone_alone() {
    let (_, owners) = empty().await;
    let (owner, secret) = owners.create("ann", "", EXPIRES).await.unwrap();
    let id = secret.id();
    assert_eq!(
        owners.pairing(&id, EXPIRES - 1).await,
        Pairing::Open(secret.clone())
    );

    assert_eq!(
        owners.pin(&id, &PHONE, 0).await.unwrap().unwrap().id,
        owner.id
    );
    assert_eq!(owners.pairing(&id, 0).await, Pairing::UsedBy(secret, PHONE));
    assert_eq!(owners.pin(&id, &OTHER_PHONE, 0).await.unwrap(), None);
    assert_eq!(owners.owner_of(&PHONE).await, Some(owner.id));
    assert_eq!(owners.owner_of(&OTHER_PHONE).await, None);

    let again = owners.pin(&id, &PHONE, EXPIRES + 1).await.unwrap();
    assert_eq!(
        again.unwrap().id,
        owner.id,
        "a pairing that broke off may be finished"
    );
}

#[tokio::test]
async fn a_code_that_is_wrong_or_late_pins_nobody() {
    let (_, owners) = empty().await;
    let (_, secret) = owners.create("ann", "", EXPIRES).await.unwrap();
    assert_eq!(
        owners.pairing(&secret.id(), EXPIRES).await,
        Pairing::Expired
    );
    assert_eq!(
        owners.pin(&secret.id(), &PHONE, EXPIRES).await.unwrap(),
        None
    );
    let wrong = PairingId([9; 16]);
    assert_eq!(owners.pairing(&wrong, 0).await, Pairing::Unknown);
    assert_eq!(owners.pin(&wrong, &PHONE, 0).await.unwrap(), None);
    assert_eq!(owners.owner_of(&PHONE).await, None);
}

#[tokio::test]
async fn a_renewed_code_ends_the_one_before() {
    let (_, owners) = empty().await;
    let (_, old) = owners.create("ann", "", EXPIRES).await.unwrap();
    let (_, new) = owners.renew("ann", EXPIRES).await.unwrap();
    assert_eq!(owners.pairing(&old.id(), 0).await, Pairing::Unknown);
    assert_eq!(owners.pairing(&new.id(), 0).await, Pairing::Open(new));
    let unknown = owners.renew("bob", EXPIRES).await;
    assert!(matches!(unknown, Err(OwnerError::Unknown(_))));
}

#[tokio::test]
async fn an_unknown_name_is_told_on_one_line() {
    let (_, owners) = empty().await;
    for name in ["no\nbody", "\u{1b}[2J\u{202e}", &"x".repeat(10_000)] {
        let line = owners.named(name).await.unwrap_err().to_string();
        assert!(!line.contains(char::is_control) && !line.contains('\u{202e}'));
        assert!(line.len() < 120, "{line}");
    }
    let line = owners.named("bob").await.unwrap_err().to_string();
    assert_eq!(line, "there is no owner bob: see the list of owners");
}

#[tokio::test]
async fn names_are_unique_and_plain() {
    let (_, owners) = empty().await;
    owners.create("ann", "", EXPIRES).await.unwrap();
    let taken = owners.create("ann", "", EXPIRES).await;
    assert!(matches!(taken, Err(OwnerError::NameTaken(_))));
    for name in ["", "a/b", "two words", "é", &"x".repeat(65)] {
        let refused = owners.create(name, "", EXPIRES).await;
        assert!(matches!(refused, Err(OwnerError::BadName(_))), "{name:?}");
    }
    for url in ["nowhere", "ftp://host/", "http://", "mailto:ann@host"] {
        let refused = owners.create("bob", url, EXPIRES).await;
        assert!(matches!(refused, Err(OwnerError::BadWakeUrl(_))), "{url:?}");
    }
    assert_eq!(owners.all().await.len(), 1);
}

#[tokio::test]
async fn other_keys_for_an_owners_node_change_nothing() {
    let (_, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    owners
        .register(&ann.id, &PHONE, registration(1), &hub())
        .await
        .unwrap();
    let before = owners.all().await;

    let differ = owners
        .register(&ann.id, &PHONE, registration(2), &hub())
        .await;
    assert!(matches!(differ, Err(OwnerError::KeysDiffer)));
    assert_eq!(owners.all().await, before);
    owners
        .register(&ann.id, &PHONE, registration(1), &hub())
        .await
        .unwrap();
    assert_eq!(owners.all().await, before);
}

#[tokio::test]
async fn a_node_belongs_to_one_owner_and_never_to_the_hub_too() {
    let (_, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    let bob = paired(&owners, "bob", OTHER_PHONE).await;
    owners
        .register(&ann.id, &PHONE, registration(1), &hub())
        .await
        .unwrap();
    for seed in [1, 99] {
        let taken = owners
            .register(&bob.id, &OTHER_PHONE, registration(seed), &hub())
            .await;
        assert!(matches!(taken, Err(OwnerError::NodeTaken)));
    }
    assert_eq!(owners.named("bob").await.unwrap().registration, None);
}

#[tokio::test]
async fn a_phone_belongs_to_one_owner() {
    let (_, owners) = empty().await;
    paired(&owners, "ann", PHONE).await;
    let (_, secret) = owners.create("bob", "", EXPIRES).await.unwrap();
    let taken = owners.pin(&secret.id(), &PHONE, 0).await;
    assert!(matches!(taken, Err(OwnerError::PhoneTaken)));
    assert_eq!(owners.pairing(&secret.id(), 0).await, Pairing::Open(secret));
}

#[tokio::test]
async fn a_new_phone_is_confirmed_only_by_the_same_keys() {
    let (_, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    owners
        .register(&ann.id, &PHONE, registration(1), &hub())
        .await
        .unwrap();
    let (_, secret) = owners.renew("ann", EXPIRES).await.unwrap();
    assert_eq!(owners.owner_of(&PHONE).await, None, "the old phone is out");
    let moved = owners
        .pin(&secret.id(), &OTHER_PHONE, 0)
        .await
        .unwrap()
        .unwrap();
    assert!(!moved.is_confirmed());
    // Not even the old one again, which may have been paired to have a new code.
    assert_eq!(owners.named("ann").await.unwrap().registered_by, None);
    // What the old phone said before it was out says nothing of the new one.
    let late = owners
        .register(&ann.id, &PHONE, registration(1), &hub())
        .await;
    assert!(matches!(late, Err(OwnerError::ShutOut)));
    let differ = owners
        .register(&ann.id, &OTHER_PHONE, registration(2), &hub())
        .await;
    assert!(matches!(differ, Err(OwnerError::KeysDiffer)));
    assert!(!owners.named("ann").await.unwrap().is_confirmed());
    let confirmed = owners
        .register(&ann.id, &OTHER_PHONE, registration(1), &hub())
        .await
        .unwrap();
    assert!(confirmed.is_confirmed());
}

#[tokio::test]
async fn a_full_disk_changes_nothing() {
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    let shared: Arc<dyn Store> = store.clone();
    let owners = load(&shared).await;
    let (_, secret) = owners.create("ann", "", EXPIRES).await.unwrap();
    let before = owners.all().await;

    store.refuse(2, StoreError::Full);
    let refused = owners.pin(&secret.id(), &PHONE, 0).await;
    assert!(matches!(refused, Err(OwnerError::Store(StoreError::Full))));
    assert_eq!(owners.all().await, before);
    assert_eq!(load(&shared).await.all().await, before);
    assert!(owners.pin(&secret.id(), &PHONE, 0).await.unwrap().is_some());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let writes = vec![Write::Put("owner/ann".into(), b"{}".to_vec())];
    let batch = Batch {
        namespace: NAMESPACE.into(),
        epoch: 0,
        writes,
    };
    store.commit(batch).await.unwrap();
    let error = Owners::load(store, 0, Network::Regtest, Box::new(|_| {}))
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("owner ann"), "{error}");
}
