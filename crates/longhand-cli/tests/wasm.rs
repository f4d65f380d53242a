//! A phone as a WebAssembly module, under Node, against a host process over WebSocket.
//!
//! Run by `scripts/wasm`, which builds the module and names it in `LONGHAND_WASM`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use longhand_proto::Code;
use longhand_proto::operator::CreateOwnerRequest;
use longhand_testkit::processes::{ChainProcess, HostProcess, HostSettings, Launcher, World};
use longhand_testkit::{KitError, Patience};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const PASSPHRASE: &str = "passphrase";
const CHANNEL_SAT: u64 = 1_000_000;
const GIFT_MSAT: u64 = 400_000_000;

/// Node with a phone in it. It ends with this value.
struct NodeProcess {
    _child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl NodeProcess {
    fn start(module: &Path, dir: &Path) -> NodeProcess {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wasm/phone.mjs");
        let mut child = Command::new("node")
            // Since Node 22 it is there without; later versions take the flag all the same.
            .arg("--experimental-websocket")
            .arg(script)
            .args([module, dir])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        NodeProcess {
            _child: child,
            requests,
            answers,
        }
    }

    /// The answer to a request: a value, or an error's code.
    async fn ask(&mut self, method: &str, with: Value) -> Result<Value, String> {
        let request = format!("{}\n", json!({ "do": method, "with": with }));
        self.requests.write_all(request.as_bytes()).await.unwrap();
        let line = self.answers.next_line().await.unwrap();
        let mut answer: Value = serde_json::from_str(&line.expect("it has ended")).unwrap();
        match answer["error"].take() {
            Value::Null => Ok(answer["ok"].take()),
            error => Err(format!("{}: {}", error["code"], error["message"])),
        }
    }

    async fn command(&mut self, command: Value) -> Result<Value, String> {
        self.ask("command", json!([command])).await
    }
}

/// The module with its JavaScript, for Node.
fn bind(wasm: &Path, to: &Path) -> PathBuf {
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen.input_path(wasm).nodejs(true).unwrap();
    bindgen.generate(to).unwrap();
    to.to_owned()
}

async fn world(dir: &Path) -> World {
    let launcher = Launcher {
        binary: env!("CARGO_BIN_EXE_longhand").into(),
        dir: dir.to_owned(),
    };
    let chain = ChainProcess::start(&launcher, "127.0.0.1:0".parse().unwrap());
    let chain = chain.await.unwrap();
    let settings = HostSettings {
        link_listen: "ws://127.0.0.1:0".into(),
        ..HostSettings::default()
    };
    let host = HostProcess::start(&launcher, &chain, settings)
        .await
        .unwrap();
    let mut world = World::new(chain, host);
    world.host.hub_node_id().await.unwrap();
    world.fund_hub(10_000_000).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/wasm builds the module and runs this"]
async fn a_phone_in_webassembly_pays_is_paid_and_comes_back_with_its_ledger() {
    let wasm = std::env::var_os("LONGHAND_WASM").expect("scripts/wasm names the module");
    let dir = tempfile::tempdir().unwrap();
    let [module, files] = ["module", "phone"].map(|name| dir.path().join(name));
    std::fs::create_dir(&files).unwrap();
    let module = bind(Path::new(&wasm), &module);
    let mut world = world(dir.path()).await;
    let request = CreateOwnerRequest {
        name: "ann".into(),
        ..CreateOwnerRequest::default()
    };
    let made = world.host.client().unwrap().create_owner(request).await;
    let code = made.unwrap().into_inner().code;

    let mut node = NodeProcess::start(&module, &files);
    let node_id = node.ask("create", json!(["regtest", PASSPHRASE])).await;
    let node_id = node_id.unwrap();
    node.ask("pair", json!([code])).await.unwrap();
    let opened = world.host.hub_open("ann", CHANNEL_SAT, GIFT_MSAT).await;
    let funding = opened.unwrap().funding_outpoint.parse().unwrap();
    world.confirm(funding).await.unwrap();
    world.host.usable("ann", 1).await.unwrap();

    let bolt11 = world.host.hub_invoice(5_000_000).await.unwrap();
    let pay =
        json!({ "command": "pay", "bolt11": bolt11, "amount_msat": null, "max_fee_msat": null });
    let paid = node.command(pay.clone()).await.unwrap();
    assert_eq!(paid["state"], "succeeded", "{paid}");
    let again = node.command(pay).await.unwrap_err();
    assert!(again.contains(Code::AlreadyPaid.as_str()), "{again}");

    // The host is killed. The phone dials until it is back.
    world.host.kill().await.unwrap();
    world.host.start_again().await.unwrap();
    let host = &world.host;
    let back = Patience::REAL.until("ann's node runs again", async || {
        // An error until it does.
        Ok::<_, KitError>(host.usable("ann", 1).await.ok())
    });
    back.await.unwrap();
    node.command(json!({ "command": "balance" })).await.unwrap();

    // The phone's process is killed: what is on record is in its files alone.
    drop(node);
    let mut node = NodeProcess::start(&module, &files);
    let wrong = node.ask("open", json!(["wrong"])).await.unwrap_err();
    assert!(wrong.contains(Code::PassphraseWrong.as_str()), "{wrong}");
    assert_eq!(node.ask("open", json!([PASSPHRASE])).await, Ok(node_id));
    node.ask("attach", json!([])).await.unwrap();
    world.host.usable("ann", 1).await.unwrap();
    let invoice = json!({ "command": "invoice", "amount_msat": 7_000_000, "description": "tea", "expiry_s": 600 });
    let invoice = node.command(invoice).await.unwrap();
    let bolt11 = invoice["bolt11"].as_str().unwrap().to_owned();
    world.host.hub_pay(bolt11).await.unwrap();
    let balance = node.command(json!({ "command": "balance" })).await.unwrap();
    assert_eq!(
        balance["lightning_msat"],
        GIFT_MSAT - 5_000_000 + 7_000_000,
        "{balance}"
    );
    node.ask("detach", json!([])).await.unwrap();
    let errors = world.stop().await;
    assert!(errors.is_empty(), "{errors:?}");
}
