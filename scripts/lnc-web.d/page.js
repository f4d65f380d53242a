// An app on stock lnc-web: a button for each of the things it can do, and a line with the answer and the time that it took.
"use strict";
const { LightningNodeConnect } = globalThis["@lightninglabs/lnc-web"];
// It keeps the keys encrypted with this; a real app asks its user.
const password = "kept with this one";
const field = (id) => document.getElementById(id).value.trim();

const asked = new URLSearchParams(location.search);
const lnc = new LightningNodeConnect({
  // lnc-web keeps the keys of each namespace by themselves.
  namespace: asked.get("app") ?? "app",
  serverHost: asked.get("mailbox"),
  wasmClientCode: "client.wasm",
  allowPasskeys: false,
});
document.getElementById("mailbox").value = lnc.serverHost;

// Rights are known as soon as there is a connection.
const connected = () => {
  const may = ["lnrpc.Lightning.GetInfo", "routerrpc.Router.SendPaymentV2", "lnrpc.Lightning.SendCoins"].map((rpc) => lnc.hasPerms(rpc));
  const expires = +lnc.expiry ? lnc.expiry.toISOString() : "never";
  return `connected; read only ${lnc.isReadOnly}; may GetInfo, SendPaymentV2, SendCoins: ${may}; expires ${expires}`;
};
const hex = (base64) => Array.from(atob(base64), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
const { lightning, router } = lnc.lnd;

// A payment is a stream of its states; it ends with the last or with an error.
const pay = (paymentRequest) =>
  new Promise((done, refused) => {
    const states = [];
    const request = { paymentRequest, timeoutSeconds: 60, feeLimitSat: 100 };
    router.sendPaymentV2(
      request,
      (payment) => {
        states.push(payment.status);
        if (payment.status === "SUCCEEDED") done(`${states.join(" ")} ${payment.valueSat} sat, preimage ${payment.paymentPreimage}`);
        if (payment.status === "FAILED") refused(new Error(`${states.join(" ")} ${payment.failureReason}`));
      },
      refused,
    );
  });

// The next invoice that somebody pays.
const settled = () =>
  new Promise((done, refused) => {
    const seen = (invoice) => invoice.state === "SETTLED" && done(`SETTLED ${invoice.amtPaidSat} sat ${invoice.memo}`);
    lightning.subscribeInvoices({}, seen, refused);
  });

// A few calls at once, many times, and a large answer.
const many = async (times) => {
  const add = () => lightning.addInvoice({ value: 1, memo: "x".repeat(600) });
  for (let n = 0; n < times; n++) await Promise.all([add(), add(), add(), add()]);
  const begun = performance.now();
  const list = await lightning.listInvoices({ numMaxInvoices: 1000 });
  const took = Math.round(performance.now() - begun);
  return `${list.invoices.length} invoices, ${JSON.stringify(list).length} characters in ${took} ms`;
};

const actions = {
  preload: () => lnc.preload().then(() => ""),
  pair: () => lnc.pair(field("words"), { method: "password", password }).then(connected),
  login: () => lnc.login({ method: "password", password }).then(connected),
  session: () => lnc.login({ method: "session" }).then(connected),
  status: async () => lnc.status,
  info: () => lightning.getInfo().then((i) => `${i.identityPubkey} ${i.alias} ${i.version} ${i.chains[0].network} ${i.blockHeight}`),
  balance: () => lightning.channelBalance().then((b) => `${b.localBalance.msat} msat`),
  invoice: () => lightning.addInvoice({ value: field("argument"), memo: "tea" }).then((i) => `${hex(i.rHash)} ${i.paymentRequest}`),
  many: () => many(+field("argument")),
  lookup: () => lightning.lookupInvoice({ rHashStr: field("argument") }).then((i) => `${i.state} ${i.amtPaidSat} sat`),
  settled,
  pay: () => pay(field("argument")),
  payments: () => lightning.listPayments({}).then((l) => l.payments.map((p) => `${p.status} ${p.valueSat}`).join(", ") || "none"),
  open: () => lightning.openChannelSync({ nodePubkeyString: field("argument"), localFundingAmount: 100000 }).then(JSON.stringify),
};

const act = async (name) => {
  const line = document.createElement("li");
  line.className = "waiting";
  line.textContent = name;
  document.getElementById("lines").append(line);
  const begun = performance.now();
  const [state, text] = await actions[name]().then((text) => ["ok", text], (error) => ["refused", error.message]);
  line.dataset.ms = Math.round(performance.now() - begun);
  line.dataset.text = text;
  line.textContent = `${name} (${line.dataset.ms} ms): ${text}`;
  line.className = state;
};
for (const name of Object.keys(actions)) {
  const button = document.createElement("button");
  button.id = button.textContent = name;
  button.onclick = () => act(name);
  document.getElementById("actions").append(button);
}
