#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_base::settings::{env_name, known_keys};

use super::*;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<HostConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.toml");
    std::fs::write(&path, file).unwrap();
    HostConfig::load(Some(&path), pairs(env), pairs(flags))
        .map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), ""))
}

#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/host.example.toml");
    let config = HostConfig::load(Some(&path), [], []).unwrap();
    assert_eq!(config, HostConfig::default());

    let text = std::fs::read_to_string(&path).unwrap();
    let table: toml::Table = toml::from_str(&text).unwrap();
    for (key, default) in known_keys::<HostConfig>().unwrap() {
        let mut value = Some(&toml::Value::Table(table.clone())).cloned();
        for part in key.split('.') {
            value = value.and_then(|value| value.get(part).cloned());
        }
        assert_eq!(value, Some(default), "{key} is missing or differs");
    }
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = "network = 'signet'\n[link]\ngrace_ms = 1\nheartbeat_ms = 1\npairing_expires_s = 1";
    let env = [
        ("LONGHAND_HOST_LINK_HEARTBEAT_MS", "2"),
        ("LONGHAND_HOST_LINK_PAIRING_EXPIRES_S", "2"),
    ];
    let config = load(file, &env, &[("link.pairing_expires_s", "3")]).unwrap();
    assert_eq!(config.network, Network::Signet);
    let link = config.link;
    assert_eq!(
        (link.grace_ms, link.heartbeat_ms, link.pairing_expires_s),
        (1, 2, 3)
    );
    assert_eq!(link.listen, LinkConfig::default().listen);
}

#[test]
fn values_of_the_environment_have_their_keys_type() {
    let env = [
        ("LONGHAND_HOST_LINK_ADDRESSES", "grpc://a:1, grpcs://b:2"),
        ("LONGHAND_HOST_LOG_JSON", "true"),
        ("LONGHAND_HOST_DATA_DIR", "/var/lib/longhand"),
        ("PATH", "/bin"),
    ];
    let config = load("", &env, &[]).unwrap();
    assert_eq!(config.link.addresses, ["grpc://a:1", "grpcs://b:2"]);
    assert!(config.log.json);
    assert_eq!(config.data_dir, Path::new("/var/lib/longhand"));
}

#[test]
fn what_is_unknown_or_wrong_is_refused_by_name() {
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    // File, environment, flags, and what the error says.
    let cases: &[(&str, Pairs<'_>, Pairs<'_>, &str)] = &[
        (
            "netwrk = 'signet'",
            &[],
            &[],
            "line 1: unknown field `netwrk`",
        ),
        (
            "\n[link]\nlisten = ['grpc://127.0.0.1:1']\nlissen = 'x'",
            &[],
            &[],
            "line 4: unknown field `lissen`",
        ),
        ("[lnk]\n", &[], &[], "unknown field `lnk`"),
        ("network = 'moon'", &[], &[], "line 1: "),
        ("= 1", &[], &[], "line 1: "),
        (
            "",
            &[("LONGHAND_HOST_LINK_GRACE", "1")],
            &[],
            "LONGHAND_HOST_LINK_GRACE",
        ),
        (
            "",
            &[("LONGHAND_HOST_LINK_GRACE_MS", "soon")],
            &[],
            "LONGHAND_HOST_LINK_GRACE_MS is not a whole",
        ),
        ("", &[], &[("link.grace", "1")], "link.grace is no setting"),
        (
            "",
            &[],
            &[("log.json", "yes")],
            "log.json is not true or false",
        ),
        (
            "\n[link]\nlisten = '127.0.0.1:1'",
            &[],
            &[],
            "line 3: link.listen is a list of addresses with schemes",
        ),
        (
            "",
            &[],
            &[("link.listen", "127.0.0.1:1")],
            "\"127.0.0.1:1\": an address begins with its scheme",
        ),
        ("", &[], &[("link.listen", "")], "link.listen is empty"),
        (
            "",
            &[],
            &[("link.mailboxes", "mailbox+ws://a:1,mailbox+grpc://a:1")],
            "link.mailboxes has a:1 twice",
        ),
        (
            "",
            &[],
            &[("operator.listen", "0.0.0.0:1")],
            "operator.listen",
        ),
        ("", &[], &[("metrics.listen", "here")], "metrics.listen"),
        ("", &[], &[("wake.timeout_ms", "0")], "wake.timeout_ms is 0"),
        (
            "",
            &[],
            &[("hub.alias", "a name of more than thirty-two bytes")],
            "hub.alias",
        ),
    ];
    for (file, env, flags, expected) in cases {
        let error = load(file, env, flags).expect_err(expected);
        assert!(
            error.contains(expected),
            "{error:?} should hold {expected:?}"
        );
        assert!(!error.contains('\n'), "{error:?} is one line");
    }
}

#[test]
fn addresses_that_fit_no_pairing_code_are_refused_before_an_owner_is_made() {
    let address = format!("grpc://{}:9750", "a".repeat(200));
    let with = |times: usize| format!("link.addresses = {:?}", vec![address.as_str(); times]);
    load(&with(2), &[], &[]).unwrap();
    let error = load(&with(3), &[], &[]).unwrap_err();
    assert!(
        error.contains("link.addresses and link.mailboxes do not fit"),
        "{error}"
    );
}

#[test]
fn an_unknown_kind_of_chain_source_is_refused_with_the_known_ones() {
    let unknown =
        "chain.kind is \"lnd\", which this host does not know: give one of bitcoind, esplora";
    let in_file = load("\n[chain]\nkind = 'lnd'", &[], &[]).unwrap_err();
    assert!(in_file.contains("line 3: "), "{in_file}");
    assert!(in_file.ends_with(unknown), "{in_file}");
    let in_environment = load("", &[("LONGHAND_HOST_CHAIN_KIND", "lnd")], &[]).unwrap_err();
    assert_eq!(in_environment, unknown);
    assert_eq!(
        load("", &[], &[("chain.kind", "lnd")]).unwrap_err(),
        unknown
    );
}

#[test]
fn a_setting_of_the_chain_under_its_old_name_is_refused_with_the_new_one() {
    for key in ["url", "user", "password", "cookie_file"] {
        let (old, new) = (format!("chain.{key}"), format!("chain.bitcoind.{key}"));
        let renamed = format!("{old} is called {new} now: rename it");
        let in_file = load(&format!("[chain]\n{key} = 'x'"), &[], &[]).unwrap_err();
        assert!(in_file.ends_with(&renamed), "{in_file}");
        assert_eq!(load("", &[], &[(&old, "x")]).unwrap_err(), renamed);

        let [old, new] = [old, new].map(|key| format!("{ENV_PREFIX}{}", env_name(&key)));
        assert_eq!(
            load("", &[(&old, "x")], &[]).unwrap_err(),
            format!("{old} is called {new} now: rename it")
        );
        let config = load("", &[(&new, "x")], &[]).unwrap();
        assert_ne!(config.chain.bitcoind, BitcoindConfig::default());
    }
}

#[test]
fn an_esplora_server_has_a_url_that_is_not_read_by_others() {
    let load = |url: &str| {
        let config = format!("[chain]\nkind = 'esplora'\n[chain.esplora]\nurl = '{url}'");
        load(&config, &[], &[])
    };
    for url in [
        "https://esplora.example/api",
        "https://192.0.2.1",
        "http://127.0.0.1:3000",
        "http://10.0.0.7:3000/api/",
        "http://[::1]:3000",
        "http://esplora.home.arpa",
        "http://abcdefghij.onion/api",
    ] {
        load(url).unwrap();
    }
    for (url, reason) in [
        ("", "chain.esplora.url is empty"),
        ("esplora.example", "no URL"),
        ("ftp://esplora.example", "neither https:// nor http://"),
        ("https://esplora.example/?network=test", "more than a path"),
        ("http://8.8.8.8/api", "a public address over http"),
        ("http://me:secret@8.8.8.8/api", "a public address over http"),
    ] {
        let refused = load(url).unwrap_err();
        assert!(refused.contains(reason), "{refused} for {url}");
        assert!(
            !refused.contains('\n') && !refused.contains("secret"),
            "{refused}"
        );
    }
    let config = load("https://me:secret@esplora.example").unwrap();
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn a_missing_file_is_named() {
    let error = HostConfig::load(Some(Path::new("/no/such/host.toml")), [], []).unwrap_err();
    assert!(error.to_string().contains("/no/such/host.toml"));
}

#[test]
fn the_password_does_not_show() {
    let config = load("[chain.bitcoind]\npassword = 'hunter2'", &[], &[]).unwrap();
    assert_eq!(config.chain.bitcoind.password.expose(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_fallback_of_fee_rates_depends_on_the_network_until_it_is_set() {
    let mut chain = ChainConfig::default();
    let of = |chain: &ChainConfig, network| chain.fallback_sat_per_kw(network);
    assert_eq!(of(&chain, Network::Bitcoin), 5_000);
    assert_eq!(of(&chain, Network::Regtest), 253);
    chain.fallback_feerate_sat_per_vb = 12;
    assert_eq!(of(&chain, Network::Bitcoin), 3_000);
    assert_eq!(of(&chain, Network::Regtest), 3_000);
}

#[test]
fn a_fallback_in_another_unit_is_refused() {
    let refused = load("[chain]\nfallback_feerate_sat_per_vb = 5000", &[], &[]);
    assert!(refused.unwrap_err().contains("look at the unit"));
}

#[test]
fn a_setting_that_sends_connections_through_tor_is_not_ignored_without_tor() {
    for key in ["tor.all_outgoing", "tor.peers", "tor.restricted_discovery"] {
        let refused = load("", &[], &[(key, "true")]).unwrap_err();
        assert!(refused.contains(key), "{refused}");
        load("", &[], &[(key, "true"), ("tor.enabled", "true")]).unwrap();
    }
}
