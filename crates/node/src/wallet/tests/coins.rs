//! Scripts that the wallet hands out.

use super::*;

#[test]
fn addresses_are_new_until_the_gap_limit_and_their_paths_are_known() {
    let mut world = World::new("tr");
    let all: Vec<_> = (0..20u32).map(|_| world.wallet.new_address()).collect();
    for (index, (address, keychain, at)) in all.iter().enumerate() {
        assert_eq!((*keychain, *at), (0, index as u32));
        assert_eq!(
            world.wallet.path_of(&address.script_pubkey()),
            Some((0, *at))
        );
    }
    assert_eq!(
        world.wallet.new_address(),
        all[all.len() - 1],
        "no further without a payment"
    );
    world.mine(&[&payment(&all[3].0.script_pubkey(), 1_000, 1)]);
    assert_eq!(world.wallet.new_address().2, 20);
    assert_eq!(world.wallet.path_of(&foreign()), None);
}

#[test]
fn change_and_shutdown_scripts_stay_the_same_until_they_are_paid() {
    let mut world = World::new("wpkh");
    for keychain in [0, 1] {
        let next = |world: &mut World| match keychain {
            0 => world.wallet.unused_script(),
            _ => world.change_script(),
        };
        let first = next(&mut world);
        assert_eq!(world.wallet.path_of(&first), Some((keychain, 0)));
        assert_eq!(next(&mut world), first);
        world.reload();
        assert_eq!(next(&mut world), first);
        world.mine(&[&payment(&first, 1_000, keychain as u8)]);
        let second = next(&mut world);
        assert_eq!(world.wallet.path_of(&second), Some((keychain, 1)));
    }
}
