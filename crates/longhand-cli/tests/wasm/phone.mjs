// A phone in Node: the module of `longhand-web` in the directory of the first argument, its files in that of the second. Each line of
// standard input is a request, {"do": METHOD, "with": [ARGUMENT...]}; each line of standard output is its result or its error.
import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { createRequire } from "node:module";

const [moduleDir, dir] = process.argv.slice(2);
const { WebPhone } = createRequire(import.meta.url)(path.resolve(moduleDir, "longhand_web.js"));

/** One call may write less than all. */
function writeAll(file, bytes, at) {
    for (let done = 0; done < bytes.length; ) {
        done += fs.writeSync(file, bytes, done, bytes.length - done, at + done);
    }
}

/** A phone's files in a directory of the operating system. */
class Files {
    place() {
        return dir;
    }

    read(name) {
        try {
            return new Uint8Array(fs.readFileSync(path.join(dir, name)));
        } catch (error) {
            if (error.code === "ENOENT") return undefined;
            throw error;
        }
    }

    replace(name, bytes) {
        const staged = path.join(dir, `${name}.new`);
        this.#with(staged, "w", (file) => writeAll(file, bytes, 0));
        fs.renameSync(staged, path.join(dir, name));
        this.#syncDirectory();
    }

    append(name, at, bytes) {
        this.#with(path.join(dir, name), "r+", (file) => writeAll(file, bytes, at));
    }

    cut(name, length) {
        this.#with(path.join(dir, name), "r+", (file) => fs.ftruncateSync(file, length));
    }

    overwrite(name, at, bytes) {
        this.append(name, at, bytes);
    }

    sync(name) {
        this.#with(path.join(dir, name), "r+", () => {});
        this.#syncDirectory();
    }

    remove(name) {
        fs.unlinkSync(path.join(dir, name));
        this.#syncDirectory();
    }

    release() {}

    #with(file, flags, act) {
        const opened = fs.openSync(file, flags, 0o600);
        try {
            act(opened);
            fs.fsyncSync(opened);
        } finally {
            fs.closeSync(opened);
        }
    }

    #syncDirectory() {
        this.#with(dir, "r", () => {});
    }
}

let phone;

const methods = {
    create: (network, passphrase) => {
        phone = WebPhone.create(new Files(), network, undefined, passphrase, 4);
        return phone.node_id();
    },
    open: (passphrase) => {
        phone = WebPhone.open(new Files(), passphrase);
        return phone.node_id();
    },
    pair: (code) => phone.pair(code),
    attach: () => phone.attach(),
    detach: () => phone.detach(),
    command: async (command) => JSON.parse(await phone.command(JSON.stringify(command))),
};

for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer;
    try {
        answer = { ok: (await methods[request.do](...request.with)) ?? null };
    } catch (error) {
        answer = { error: { code: error.code ?? "", message: String(error.message ?? error) } };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
