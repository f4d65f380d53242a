#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::Code;
use longhand_proto::command::AppRights;
use longhand_store::MemoryStore;
use longhand_store::testing::FailingStore;
use prost::Message;

use super::*;
use crate::files::to_hex;
use crate::network::WakeFrom;
use crate::registration::tests::registration;

const PHONE: LinkKey = LinkKey([1; 32]);
const OTHER_PHONE: LinkKey = LinkKey([2; 32]);
const EXPIRES: u64 = 1_000;

fn hub() -> NodeId {
    NodeId::from_slice(&registration(99).node_id).unwrap()
}

async fn load(store: &Arc<dyn Store>) -> OwnerBook {
    OwnerBook::load(store.clone(), 0, Network::Regtest, Box::new(|_| {}))
        .await
        .unwrap()
}

async fn empty() -> (Arc<dyn Store>, OwnerBook) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let owners = load(&store).await;
    (store, owners)
}

/// An owner whose phone has paired.
async fn paired(owners: &OwnerBook, name: &str, phone: LinkKey) -> OwnerRecord {
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
async fn a_code_that_is_wrong_or_late_pins_no_phone() {
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
    let unknown = owners.renew("bob", EXPIRES).await.unwrap_err();
    assert_eq!(unknown.code(), Code::OwnerNotFound);
}

#[tokio::test]
async fn an_unknown_name_is_reported_on_one_line() {
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
        let refused = owners.create(name, "", EXPIRES).await.unwrap_err();
        assert_eq!(refused.code(), Code::OwnerName, "{name:?}");
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
    // The old phone, paired again with the new code, would have to register again too.
    assert_eq!(owners.named("ann").await.unwrap().registered_by, None);
    // A late registration by the old phone does not confirm the new one.
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

/// Replaces the stored record of an owner.
async fn overwrite(store: &Arc<dyn Store>, name: &str, value: &[u8]) {
    let batch = Batch {
        namespace: NAMESPACE.into(),
        epoch: 0,
        writes: vec![Write::Put(format!("owner/{name}"), value.to_vec())],
    };
    store.commit(batch).await.unwrap();
}

/// As when the owner's node has stored something.
async fn begin_node(store: &Arc<dyn Store>, name: &str) {
    let batch = Batch {
        namespace: format!("node/{name}"),
        epoch: 0,
        writes: vec![Write::Put("manager".into(), Vec::new())],
    };
    store.commit(batch).await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_its_owner_alone() {
    let (store, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    let bob = paired(&owners, "bob", OTHER_PHONE).await;
    overwrite(&store, "ann", b"{}").await;

    let owners = load(&store).await;
    assert_eq!(owners.all().await, [bob]);
    let [unreadable] = owners.unreadable() else {
        panic!("ann's record alone cannot be read");
    };
    let line = unreadable.to_string();
    assert!(
        line.contains("owner ann") && line.contains("restore"),
        "{line}"
    );
    assert_eq!(owners.named("ann").await.unwrap_err().to_string(), line);
    assert_eq!(owners.owner_of(&PHONE).await, None);
    let unknown = owners.may_register(&ann.id, &registration(1), &hub()).await;
    assert!(matches!(unknown, Err(OwnerError::Unknown(_))));
}

#[tokio::test]
async fn each_reason_why_a_record_cannot_be_read_is_given_and_quotes_nothing() {
    let (store, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    let mut good: serde_json::Value = serde_json::from_slice(&ann.to_bytes().unwrap()).unwrap();
    good["registration"] = serde_json::json!(to_hex(&registration(1).encode_to_vec()));
    let spoiled = |pointer: &str| {
        let mut record = good.clone();
        *record.pointer_mut(pointer).unwrap() = "SECRET".into();
        record.to_string()
    };
    let bad_node_id = Registration {
        node_id: vec![5; 33],
        ..registration(1)
    };
    let mut without_node_id = good.clone();
    without_node_id["registration"] = to_hex(&bad_node_id.encode_to_vec()).into();
    let cases = [
        ("SECRET".to_owned(), "JSON"),
        (spoiled("/pairing"), "type"),
        (spoiled("/id"), "id"),
        (spoiled("/phone"), "phone"),
        (spoiled("/pairing/secret"), "pairing secret"),
        (spoiled("/registration"), "registration"),
        (without_node_id.to_string(), "node id"),
    ];
    for (record, reason) in cases {
        overwrite(&store, "ann", record.as_bytes()).await;
        let line = load(&store).await.unreadable()[0].to_string();
        assert!(line.contains(reason), "{line}");
        assert!(!line.contains("SECRET"), "{line}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_never_overwritten() {
    let (store, owners) = empty().await;
    let (_, secret) = owners.create("ann", "", EXPIRES).await.unwrap();
    overwrite(&store, "ann", b"{}").await;
    let owners = load(&store).await;
    let taken = owners.create("ann", "", EXPIRES).await;
    assert!(matches!(taken, Err(OwnerError::NameTaken(_))));
    let renewed = owners.renew("ann", EXPIRES).await;
    assert!(matches!(renewed, Err(OwnerError::Unreadable(_))));
    assert_eq!(owners.pin(&secret.id(), &PHONE, 0).await.unwrap(), None);
    let stored = store.get(NAMESPACE, "owner/ann").await.unwrap();
    assert_eq!(stored.as_deref(), Some(&b"{}"[..]));
}

#[tokio::test]
async fn the_node_of_an_unreadable_owner_is_taken_by_no_other_owner() {
    let (store, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    owners
        .register(&ann.id, &PHONE, registration(1), &hub())
        .await
        .unwrap();
    begin_node(&store, "ann").await;
    overwrite(&store, "ann", b"{}").await;

    let owners = load(&store).await;
    let bob = paired(&owners, "bob", OTHER_PHONE).await;
    let taken = owners
        .register(&bob.id, &OTHER_PHONE, registration(1), &hub())
        .await;
    assert!(matches!(taken, Err(OwnerError::NodeTaken)));
    owners
        .register(&bob.id, &OTHER_PHONE, registration(2), &hub())
        .await
        .unwrap();
}

/// A record without the node id beside it, of a version that stored none.
#[tokio::test]
async fn node_ids_are_added_to_the_records_of_earlier_versions() {
    let (store, owners) = empty().await;
    let ann = OwnerRecord {
        registration: Some(registration(1)),
        registered_by: Some(PHONE),
        ..paired(&owners, "ann", PHONE).await
    };
    begin_node(&store, "ann").await;
    overwrite(&store, "ann", &ann.to_bytes().unwrap()).await;
    load(&store).await;
    overwrite(&store, "ann", b"{}").await;

    let owners = load(&store).await;
    let bob = paired(&owners, "bob", OTHER_PHONE).await;
    let taken = owners
        .register(&bob.id, &OTHER_PHONE, registration(1), &hub())
        .await;
    assert!(matches!(taken, Err(OwnerError::NodeTaken)));
}

#[tokio::test]
async fn no_node_is_registered_that_may_be_an_unreadable_owners() {
    let (store, owners) = empty().await;
    let bob = paired(&owners, "bob", OTHER_PHONE).await;
    begin_node(&store, "ann").await;
    overwrite(&store, "ann", b"{}").await;
    let refused = load(&store)
        .await
        .register(&bob.id, &OTHER_PHONE, registration(1), &hub())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::NodeUnclear);
}

const PUSH: &str = "https://push.example/ann";

fn urls(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_phones_wake_urls_are_stored_beside_the_operators_and_replaced_as_a_whole() {
    let (store, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    let given = urls(&["https://a.example/t", "http://b.example/?token=1"]);
    let set = owners.set_phone_wake_urls(&ann.id, &PHONE, &given).await;
    assert_eq!(set.unwrap().phone_wake_urls, given);
    owners.set_wake_url("ann", Some(PUSH), false).await.unwrap();

    let stored = load(&store).await.named("ann").await.unwrap();
    assert_eq!(stored.phone_wake_urls, given);
    assert_eq!(stored.wake_url.as_deref(), Some(PUSH));
    let from: Vec<_> = stored.wake_urls().iter().map(|url| url.from).collect();
    assert_eq!(from, [WakeFrom::Operator, WakeFrom::Phone, WakeFrom::Phone]);

    let set = owners.set_phone_wake_urls(&ann.id, &PHONE, &[]).await;
    assert!(set.unwrap().phone_wake_urls.is_empty());
    let stored = load(&store).await.named("ann").await.unwrap();
    assert_eq!(stored.wake_urls().len(), 1);
}

#[tokio::test]
async fn wake_urls_that_cannot_be_called_are_refused_with_nothing_changed() {
    let (_, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    let kept = urls(&[PUSH]);
    let set = async |given: &[String]| {
        let set = owners.set_phone_wake_urls(&ann.id, &PHONE, given).await;
        set.map(|owner| owner.phone_wake_urls)
    };
    set(&kept).await.unwrap();
    for bad in ["", "nowhere", "ftp://a.example/", "file:///etc/passwd"] {
        let refused = set(&urls(&[PUSH, bad])).await;
        assert!(matches!(refused, Err(OwnerError::BadWakeUrl(_))), "{bad}");
    }
    let long = format!("https://a.example/{}", "x".repeat(495));
    // As long as allowed, until its spaces are percent-encoded.
    let spaces = format!("https://a.example/{}x", " ".repeat(400));
    for long in [long, spaces] {
        let refused = set(&[long]).await;
        assert!(matches!(refused, Err(OwnerError::LongWakeUrl)));
    }
    let many: Vec<_> = (0..5).map(|n| format!("https://a.example/{n}")).collect();
    let refused = set(&many).await;
    assert!(matches!(refused, Err(OwnerError::ManyWakeUrls)));
    let stored = owners.named("ann").await.unwrap();
    assert_eq!(stored.phone_wake_urls, kept);
    assert_eq!(set(&many[..4]).await.unwrap(), many[..4]);
}

#[tokio::test]
async fn a_renewed_pairing_forgets_the_phones_wake_urls_and_keeps_the_operators() {
    let (store, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    owners.set_wake_url("ann", Some(PUSH), false).await.unwrap();
    let given = urls(&["https://a.example/t"]);
    let set = owners.set_phone_wake_urls(&ann.id, &PHONE, &given).await;
    set.unwrap();
    owners.renew("ann", EXPIRES).await.unwrap();
    let stored = load(&store).await.named("ann").await.unwrap();
    assert!(stored.phone_wake_urls.is_empty());
    assert_eq!(stored.wake_url.as_deref(), Some(PUSH));
    let refused = owners.set_phone_wake_urls(&ann.id, &PHONE, &given).await;
    assert!(matches!(refused, Err(OwnerError::ShutOut)));
}

#[tokio::test]
async fn an_operator_changes_and_clears_wake_urls_one_by_one() {
    let (_, owners) = empty().await;
    let ann = paired(&owners, "ann", PHONE).await;
    let given = urls(&["https://a.example/t"]);
    let set = owners.set_phone_wake_urls(&ann.id, &PHONE, &given).await;
    set.unwrap();
    let set = async |url, clear_phones| {
        let set = owners.set_wake_url("ann", url, clear_phones).await.unwrap();
        (set.wake_url, set.phone_wake_urls)
    };
    let push = || Some(PUSH.to_owned());
    assert_eq!(set(Some(PUSH), false).await, (push(), given.clone()));
    assert_eq!(set(None, false).await, (push(), given.clone()));
    assert_eq!(set(None, true).await, (push(), vec![]));
    assert_eq!(set(Some(""), false).await, (None, vec![]));
    let refused = owners.set_wake_url("ann", Some("nowhere"), false).await;
    assert!(matches!(refused, Err(OwnerError::BadWakeUrl(_))));
    let refused = owners.set_wake_url("bob", None, false).await;
    assert!(matches!(refused, Err(OwnerError::Unknown(_))));
}

#[tokio::test]
async fn each_hundred_owners_have_an_onion_service_which_they_keep() {
    let (store, owners) = empty().await;
    for n in 0..OWNERS_PER_SERVICE + 1 {
        let name = format!("owner-{n}");
        let (owner, _) = owners.create(&name, "", EXPIRES).await.unwrap();
        let expected = u32::from(n >= OWNERS_PER_SERVICE);
        assert_eq!(owner.tor_service, Some(expected), "{n}");
    }
    let reloaded = load(&store).await;
    assert_eq!(reloaded.all().await, owners.all().await);
    let (next, _) = reloaded.create("next", "", EXPIRES).await.unwrap();
    assert_eq!(next.tor_service, Some(1));
}

#[tokio::test]
async fn owners_of_earlier_versions_get_an_onion_service_when_they_are_loaded_first() {
    let (store, owners) = empty().await;
    for name in ["ann", "bob"] {
        let (owner, _) = owners.create(name, "", EXPIRES).await.unwrap();
        let earlier = OwnerRecord {
            tor_service: None,
            ..owner
        };
        overwrite(&store, name, &earlier.to_bytes().unwrap()).await;
    }
    let first = load(&store).await.all().await;
    assert!(first.iter().all(|owner| owner.tor_service == Some(0)));
    assert_eq!(load(&store).await.all().await, first);
}

#[tokio::test]
async fn a_number_of_an_onion_service_that_no_host_has_is_replaced_and_costs_no_memory() {
    let (store, owners) = empty().await;
    let (owner, _) = owners.create("ann", "", EXPIRES).await.unwrap();
    let damaged = OwnerRecord {
        tor_service: Some(u32::MAX),
        ..owner
    };
    overwrite(&store, "ann", &damaged.to_bytes().unwrap()).await;
    let loaded = load(&store).await;
    assert_eq!(loaded.named("ann").await.unwrap().tor_service, Some(0));
    let (next, _) = loaded.create("bob", "", EXPIRES).await.unwrap();
    assert_eq!(next.tor_service, Some(0));
}

fn app(number: u8, by_operator: bool) -> AppRecord {
    AppRecord {
        id: [number; 8],
        name: format!("app {number:02}"),
        rights: AppRights {
            read: true,
            ..AppRights::default()
        },
        expires_unix_s: 0,
        by_operator,
        secret: AppSecret::from_bytes([number; 32]),
        words_expire_unix_s: EXPIRES,
        key: None,
    }
}

#[tokio::test]
async fn apps_survive_the_store_and_each_comes_with_one_key() {
    let (store, owners) = empty().await;
    let owner = paired(&owners, "ann", PHONE).await;
    let connected = owners
        .connect_app(&owner.id, Some(&PHONE), app(1, false))
        .await;
    assert_eq!(connected.unwrap().apps, [app(1, false)]);
    owners.app_paired(&owner.id, [1; 8], hub()).await.unwrap();
    let second = owners.app_paired(&owner.id, [1; 8], hub()).await;
    assert_eq!(second.unwrap_err().code(), Code::AppUnknown);
    let reloaded = load(&store).await.all().await;
    assert_eq!(reloaded, owners.all().await);
    assert_eq!(reloaded[0].apps[0].key, Some(hub()));
    let left = owners
        .disconnect_app(&owner.id, Some(&PHONE), "app 01")
        .await;
    assert_eq!(left.unwrap().apps, []);
    let again = owners.disconnect_app(&owner.id, None, "app 01").await;
    assert_eq!(again.unwrap_err().code(), Code::AppUnknown);
}

#[tokio::test]
async fn an_owner_has_sixteen_apps_with_names_of_their_own() {
    let (_, owners) = empty().await;
    let owner = paired(&owners, "ann", PHONE).await;
    let connect = |app| owners.connect_app(&owner.id, Some(&PHONE), app);
    for number in 0..16 {
        connect(app(number, false)).await.unwrap();
    }
    let code = async |app| connect(app).await.unwrap_err().code();
    assert_eq!(code(app(0, false)).await, Code::AppNameTaken);
    assert_eq!(code(app(16, false)).await, Code::TooManyApps);
    let bad = AppRecord {
        name: "a\nb".into(),
        ..app(17, false)
    };
    assert_eq!(code(bad).await, Code::AppNameMalformed);
    let other = owners.connect_app(&owner.id, Some(&OTHER_PHONE), app(18, false));
    assert_eq!(other.await.unwrap_err().code(), Code::UnknownOwner);
}

#[tokio::test]
async fn apps_that_a_phone_has_connected_go_with_its_pairing() {
    let (_, owners) = empty().await;
    let owner = paired(&owners, "ann", PHONE).await;
    for app in [app(1, false), app(2, true)] {
        owners.connect_app(&owner.id, None, app).await.unwrap();
    }
    let (renewed, _) = owners.renew("ann", EXPIRES).await.unwrap();
    assert_eq!(renewed.apps, [app(2, true)]);
}
