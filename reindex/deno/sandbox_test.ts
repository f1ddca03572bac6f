/** The walls around card code: each test tries one way out and expects to be refused. */
import * as assert from "./assert.ts";
import { BLOG, byPath, cardsTask, doc, failed, NONCE, rendered, Replica, run } from "./testing.ts";
import { permissions } from "./sandbox.ts";

/** Where the wall is tried without a replica; nothing listens there. */
const NOWHERE = "http://127.0.0.1:65000/";

/** Runs `attempt` at the top level of a card module and gives what became of it. */
async function outcomeOf(attempt: string): Promise<string> {
  return outcomeIn(await run({ [`${BLOG}try.js`]: tryModule(attempt) }, TRY));
}

/** Runs `attempt` in a Worker that has the sandbox's permissions and nothing else taken away. */
async function outcomeAtWall(attempt: string): Promise<string> {
  const code = `self.onmessage = async () => { ${trying(attempt)}; self.postMessage(outcome); };`;
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(code)}`, {
    type: "module",
    deno: { permissions: permissions("127.0.0.1:65001") },
  });
  const outcome = await new Promise<string>((resolve) => {
    worker.onmessage = (event) => resolve(event.data);
    worker.postMessage(null);
  });
  worker.terminate();
  return outcome;
}

const TRY = cardsTask({ try: doc("./try", "Try") });

function trying(attempt: string): string {
  return `
    let outcome;
    try {
      outcome = "GOT " + String(await (async () => { ${attempt} })());
    } catch (error) {
      outcome = "REFUSED " + error;
    }
  `;
}

function tryModule(attempt: string): string {
  return `
    import { Card } from "@realm/base";
    import { h } from "preact";
    ${trying(attempt)}
    export class Try extends Card {
      static isolated = () => outcome;
      static atom = () => h("p", { dangerouslySetInnerHTML: { __html: outcome } });
    }
  `;
}

function outcomeIn(answer: Awaited<ReturnType<typeof run>>): string {
  return rendered(byPath(answer).try).html.atom.slice("<p>".length, -"</p>".length);
}

/** The permissions refuse it, and so does the whole, whichever part of it comes first. */
function refuses(what: string, attempt: string) {
  Deno.test(`the sandbox's permissions don't let card code ${what}`, async () => {
    const outcome = await outcomeAtWall(attempt);
    assert.match(outcome, /^REFUSED .*(Requires \w+ (import )?access|NotCapable)/);
    assert.match(await outcomeOf(attempt), /^REFUSED /);
  });
}

/** Refused by what the sandbox takes away or by how modules are found, not by a permission. */
function lacks(what: string, attempt: string, pattern: RegExp) {
  Deno.test(`card code can't ${what}`, async () => {
    assert.match(await outcomeOf(attempt), pattern);
  });
}

Deno.test("an attempt that nothing forbids is seen to succeed", async () => {
  assert.equal(await outcomeOf("return 1 + 1"), "GOT 2");
  assert.equal(await outcomeAtWall("return 1 + 1"), "GOT 2");
});

refuses(
  "read a file",
  `
  const fs = await import("node:fs"); return fs.readFileSync("/etc/hostname", "utf8");`,
);
refuses("read a file through Deno", `return Deno.readTextFileSync("/etc/hostname");`);
refuses(
  "read the prerenderer's own files",
  `
  const fs = await import("node:fs"); return fs.readFileSync("reindex/deno/host.ts", "utf8");`,
);
// Specifiers are variables: Deno loads literal ones with the Worker itself, by its parent's permissions.
refuses(
  "import a file as text",
  `
  const file = "file:///etc/hostname";
  return (await import(file, { with: { type: "text" } })).default;`,
);
refuses(
  "import the prerenderer's own files",
  `
  const file = ${JSON.stringify(new URL("./host.ts", import.meta.url).href)};
  return Object.keys(await import(file));`,
);
refuses(
  "write a file",
  `
  const fs = await import("node:fs"); fs.writeFileSync("out-of-the-sandbox", "x");`,
);
refuses("fetch", `return (await fetch("${NOWHERE}")).status;`);
refuses(
  "fetch through Node's http",
  `
  const http = await import("node:http");
  return await new Promise((resolve, reject) =>
    http.get("${NOWHERE}", (answer) => resolve(answer.statusCode)).on("error", reject));`,
);
refuses(
  "open a socket",
  `
  const net = await import("node:net");
  return await new Promise((resolve, reject) =>
    net.connect(65000, "127.0.0.1", () => resolve("connected")).on("error", reject));`,
);
refuses(
  "open a socket through Deno",
  `
  return await Deno.connect({ hostname: "127.0.0.1", port: 65000 });`,
);
refuses("open a web socket", `return new WebSocket("ws://127.0.0.1:65000/");`);
refuses("resolve a host name", `return await Deno.resolveDns("localhost", "A");`);
refuses(
  "read the environment",
  `
  const { env } = await import("node:process"); return env.SECRET_OF_THE_HOST;`,
);
refuses("list the environment", `return JSON.stringify(Deno.env.toObject());`);
refuses(
  "start a process",
  `
  const { execFileSync } = await import("node:child_process"); return execFileSync("id");`,
);
refuses("start a process through Deno", `return new Deno.Command("id").outputSync();`);
refuses(
  "signal another process",
  `
  const process = await import("node:process"); return process.kill(process.ppid, "SIGCONT");`,
);
refuses("learn about the system", `const os = await import("node:os"); return os.hostname();`);
refuses("load a native library", `return Deno.dlopen("/x.so", {});`);
refuses(
  "import from another host",
  `
  const url = "${NOWHERE}x.js"; return Object.keys(await import(url));`,
);
refuses(
  "gain permissions in a Worker of its own",
  `
  return new Worker("data:text/javascript,", {
    type: "module", deno: { permissions: { read: true } } });`,
);

lacks("use the Deno namespace", `return Deno.version`, /^REFUSED ReferenceError/);
lacks(
  "import an npm package that isn't installed",
  `return await import("npm:is-number@7.0.0");`,
  /^REFUSED TypeError: Could not find a matching package/,
);
lacks(
  "import a package that the import map doesn't name",
  `return await import("is-number");`,
  /^REFUSED TypeError: Import "is-number" not a dependency/,
);
lacks("import from JSR", `return await import("jsr:@std/assert@1");`, /^REFUSED /);
lacks("start a Worker", `return new Worker("data:,");`, /^REFUSED ReferenceError/);
lacks("use a timer", `return setTimeout(() => {}, 0);`, /^REFUSED ReferenceError/);
lacks("speak to the host", `return postMessage({ tell: "result" });`, /^REFUSED ReferenceError/);
lacks(
  "listen in on what the host says",
  `
  let object = globalThis;
  while (!Object.hasOwn(object, "dispatchEvent")) object = Object.getPrototypeOf(object);
  object.dispatchEvent = () => {}; return "patched";`,
  /^REFUSED TypeError: .*read only/,
);
lacks(
  "be handed what the host says by a property that all objects share",
  `Object.defineProperty(Object.prototype, "data", { set() {} }); return "shared";`,
  /^REFUSED TypeError: .*not extensible/,
);

for (
  const [what, statement] of [
    ["a file", `import "file:///etc/hostname" with { type: "text" };`],
    ["another host", `import "${NOWHERE}x.js";`],
    ["a package that isn't installed", `import "npm:is-number@7.0.0";`],
  ]
) {
  Deno.test(`card code can't import ${what} by an import declaration`, async () => {
    const card = byPath(await run({ [`${BLOG}try.js`]: statement }, TRY)).try;
    assert.match(
      failed(card).message,
      /^Requires import access|^Could not find a matching|^Remote modules are not allowed/,
    );
  });
}

Deno.test("card code can't import from a second server on the same machine", async () => {
  await using other = new Replica({ [`${BLOG}secret.js`]: "export default 'secret'" });
  const [pinned] = Object.entries(other.urls).find(([, url]) => url === BLOG)!;
  const outcome = await outcomeOf(`return (await import("${pinned}secret.js")).default;`);
  assert.match(outcome, /^REFUSED TypeError: Requires import access/);
  assert.equal(other.requested, []);
});

Deno.test("card code can't write to stdout, where the host answers", async () => {
  const forged = JSON.stringify({ type: "card", url: `${BLOG}try`, html: {}, forged: true });
  const answer = await run({
    [`${BLOG}try.js`]: tryModule(`
      console.log(${JSON.stringify(forged)});
      const fs = await import("node:fs");
      fs.writeSync(1, "\\n" + ${JSON.stringify(forged)} + "\\n");
      return "written";
    `),
  }, TRY);
  assert.match(outcomeIn(answer), /^REFUSED/);
  assert.ok(!answer.stdout.includes("\n" + forged));
  assert.equal(answer.responses.map((response) => response.type), ["card", "done"]);
});

Deno.test("card code can't read the nonce from stdin or from the command line", async () => {
  const outcome = await outcomeOf(`
    const { argv } = await import("node:process");
    const fs = await import("node:fs");
    return new Promise((resolve, reject) => {
      const found = JSON.stringify(argv);
      fs.read(0, new Uint8Array(4096), 0, 4096, null, (error, n) => reject(error ?? n));
      queueMicrotask(() => resolve(found));
    });
  `);
  assert.ok(!outcome.includes(NONCE), outcome);
});

Deno.test("an unhandled rejection costs neither its card nor the next one", async () => {
  const files = { [`${BLOG}try.js`]: tryModule(`Promise.reject(new Error("loose")); return 1;`) };
  const tried = doc("./try", "Try");
  const cards = byPath(await run(files, cardsTask({ one: tried, two: tried })));
  assert.equal(rendered(cards.one).html.isolated, "GOT 1");
  assert.equal(rendered(cards.two).html.isolated, "GOT 1");
});
