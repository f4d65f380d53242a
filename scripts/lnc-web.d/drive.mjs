// Serves the page on loopback, opens it in headless Chromium, and clicks.
//   drive.mjs DIR MAILBOX SPKI CHROMIUM
// DIR has the page, lnc-web.js and client.wasm, node_modules, and takes the browser's profile. SPKI is the hash of the one key whose
// certificates the browser accepts unseen. Each line of input is a button's name and what goes into the field "argument", or into "words" for
// `pair`; `visit APP` (the page as another app, with keys of its own), `reload`, `reopen` (the browser, with the same profile), `screenshot PATH`
// and `asked` (what the page has opened) are others. A line of JSON answers: {ok, text, ms}.
import { createReadStream, existsSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [dir, mailbox, spki, executablePath] = process.argv.slice(2);
const { chromium } = createRequire(join(dir, "package.json"))("playwright-core");

const types = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };
const server = createServer((request, response) => {
  const name = new URL(request.url, "http://page").pathname.slice(1) || "index.html";
  const path = join(dir, name);
  if (name.includes("/") || !existsSync(path)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[name.split(".").pop()] ?? "text/plain" });
  createReadStream(path).pipe(response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const page_url = `http://127.0.0.1:${server.address().port}/?mailbox=${encodeURIComponent(mailbox)}`;

const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", `--ignore-certificate-errors-spki-list=${spki}`];
let context, page;
// All that the page has asked for, how often, by scheme and host.
const asked = {};
function note(url) {
  const { protocol, host } = new URL(url);
  const origin = `${protocol}//${host}`;
  asked[origin] = (asked[origin] ?? 0) + 1;
}

async function open() {
  const options = { executablePath, args, viewport: { width: 1100, height: 900 }, handleSIGTERM: false };
  context = await chromium.launchPersistentContext(join(dir, "profile"), options);
  page = context.pages()[0] ?? (await context.newPage());
  page.on("request", (request) => note(request.url()));
  page.on("websocket", (socket) => note(socket.url()));
  page.on("console", (message) => console.error(`page: ${message.text()}`));
  page.on("pageerror", (error) => console.error(`page: ${error}`));
  await page.goto(page_url);
}

// Clicks a button, and waits for the line that comes of it.
async function click(name, argument) {
  await page.fill(name === "pair" ? "#words" : "#argument", argument);
  const line = page.locator("#lines li").nth(await page.locator("#lines li").count());
  await page.click(`#${name}`);
  await line.and(page.locator(":not(.waiting)")).waitFor({ timeout: 120_000 });
  // Used up by now, yet no business of a screenshot.
  if (name === "pair") await page.fill("#words", "");
  const { text, ms } = await line.evaluate((element) => ({ ...element.dataset }));
  return { ok: (await line.getAttribute("class")) === "ok", text, ms: +ms };
}

const others = {
  visit: (app) => page.goto(`${page_url}&app=${app}`),
  reload: () => page.reload(),
  reopen: () => context.close().then(open),
  screenshot: (path) => page.screenshot({ path, fullPage: true }),
  asked: () => Object.entries(asked).map(([origin, times]) => `${origin} ${times} times`).join(", "),
};
async function answer(line) {
  const [name, ...rest] = line.split(" ");
  const begun = performance.now();
  if (!others[name]) return click(name, rest.join(" "));
  const text = await others[name](rest.join(" "));
  return { ok: true, text: typeof text === "string" ? text : "", ms: Math.round(performance.now() - begun) };
}

process.on("SIGTERM", () => context?.close().finally(() => process.exit(1)));
await open();
const say = (answer) => writeSync(1, JSON.stringify(answer) + "\n");
say({ ok: true, text: context.browser()?.version() ?? "", ms: 0 });
for await (const line of createInterface({ input: process.stdin })) {
  say(await answer(line).catch((error) => ({ ok: false, text: `the driver: ${error.message}`, ms: 0 })));
}
await context.close();
server.close();
