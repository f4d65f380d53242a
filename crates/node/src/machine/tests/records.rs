//! Records of older and newer programs.

use crate::api::NodeError;
use crate::machine::testing::{Id, World, world_with_channel};
use crate::store::schema::{VERSION, key};

/// Loads the node from its store with `version` as the version of its records.
fn load_with_version(world: &mut World, id: Id, version: &[u8]) -> Result<(), NodeError> {
    let entry = (key::VERSION.to_owned(), version.to_vec());
    world.nodes[id].store.extend([entry]);
    world.try_reload(id)
}

#[test]
fn a_new_node_marks_its_records_with_their_version() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    assert_eq!(world.nodes[hub].store[key::VERSION], VERSION.to_be_bytes());
}

#[test]
fn records_of_a_newer_program_are_refused_and_not_touched() {
    let (mut world, hub, _) = world_with_channel();
    let newer = (VERSION + 1).to_be_bytes();
    let error = load_with_version(&mut world, hub, &newer).unwrap_err();
    assert!(matches!(error, NodeError::Load(_)) && !error.is_transient());
    let message = error.to_string();
    let versions = format!(
        "version {}, this program knows up to {VERSION}",
        VERSION + 1
    );
    assert!(message.contains(&versions), "{message}");
    assert!(message.contains("use a newer Longhand"), "{message}");
    assert_eq!(world.nodes[hub].store[key::VERSION], newer);
}

#[test]
fn a_version_that_is_not_4_bytes_is_refused() {
    let (mut world, hub, _) = world_with_channel();
    let error = load_with_version(&mut world, hub, &[2]).unwrap_err();
    assert!(matches!(error, NodeError::Load(_)), "{error}");
}

#[test]
fn records_without_a_version_are_read_and_marked() {
    let (mut world, _, owner) = world_with_channel();
    world.nodes[owner].store.remove(key::VERSION);
    world.reload(owner);
    assert_eq!(
        world.nodes[owner].store[key::VERSION],
        VERSION.to_be_bytes()
    );
    assert_eq!(world.turn(owner).channels().len(), 1);
}
