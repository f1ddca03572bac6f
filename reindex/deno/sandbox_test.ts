/**
 * Tests that card code can't leave its sandbox or change other pages. The tests put the attempts of
 * `sandbox_attempts.ts` into the code of card modules, and render cards of these modules. Then the
 * tests check the results of the attempts, and the pages of cards that are rendered later.
 */
import * as assert from "./assert.ts";
import { CHANGES, REFUSED, SPOIL, TEMPLATES } from "./sandbox_attempts.ts";
import { PERMISSIONS } from "./sandbox.ts";
import {
  BLOG,
  byPath,
  cardsTask,
  doc,
  failed,
  type Files,
  NONCE,
  rendered,
  run,
} from "./testing.ts";

const HEAD = `
  import { Card, Embed, Markdown, formatDate, date, linksTo, markdown, string } from "@realm/base";
  import { Component, Fragment, h } from "preact";`;

/**
 * Returns the source of a module that runs the code `attempt` when the module is loaded. A card of
 * the module shows `GOT` and the value that the code returned. If the code threw an error, the card
 * shows `REFUSED` and the error.
 */
function tries(attempt: string): string {
  return `${HEAD} ${SPOIL}
    let outcome;
    try {
      outcome = "GOT " + String(await (async () => { ${attempt} })());
    } catch (error) {
      outcome = "REFUSED " + error;
    }
    export class Try extends Card {
      static fields = { next: linksTo(() => Card) };
      static isolated = () => outcome;
      static atom = () => h("p", { dangerouslySetInnerHTML: { __html: outcome } });
    }`;
}

/**
 * A module with the card type `Later`. Its pages use most features of the card library. So an
 * attempt that changes one of these features also changes the pages.
 */
const LATER = `${HEAD}
  export const mood = { now: "calm" };
  export class Later extends Card {
    static displayName = "Later";
    static styles = "p { color: red }";
    static fields = {
      title: string(), body: markdown(), day: date(), next: linksTo(() => Card),
    };
    static isolated = ({ card, realm }) => h("main", null,
      h("h1", { title: card.title }, card.title, " ", realm.name), h(Markdown, { text: card.body }),
      h("time", null, formatDate(card.day)), h(Fragment, null, [1, 2].map((n) => h("i", { key: n }, n))),
      h(Embed, { card: card.next, format: "embedded" }), JSON.stringify({ a: [new URL("/x", card.id)] }), mood.now);
  }`;
const later = doc("./later", "Later", {
  title: " A later card ",
  body: "# Of *all*\n\n- this\n- and [that](./two)",
  day: "2026-02-03",
}, { next: "./two" });
const TWO = doc("@realm/base", "RealmConfig", { name: "two" });

/**
 * Renders a card of each module in `modules`, and then the cards `later` and `two`. The modules'
 * code tries to leave the sandbox or to change the pages of `later` and `two`. In the returned
 * object, the property `outcomes` lists the results of the modules' cards. The property `later` is
 * a JSON text with the results of the cards `later` and `two`.
 */
async function attempt(modules: string[]) {
  const files: Files = { [`${BLOG}later.js`]: LATER };
  modules.forEach((code, at) => files[`${BLOG}try${at || ""}.js`] = code);
  const cards = Object.fromEntries(
    modules.map((
      _,
      at,
    ) => [`try${at || ""}`, doc(`./try${at || ""}`, "Try", {}, { next: "./two" })]),
  );
  const task = cardsTask({ ...cards, later, two: TWO }, { [`${BLOG}two`]: TWO });
  const answers = byPath(await run(files, task));
  const { ms: _, ...last } = answers.later;
  const { ms: __, ...two } = answers.two;
  return {
    outcomes: modules.map((_, at) => answers[`try${at || ""}`]),
    later: JSON.stringify([last, two]),
  };
}

const UNTOUCHED = (await attempt([])).later;

function shown(response: ReturnType<typeof byPath>[string]): string {
  return rendered(response).html.atom.slice("<p>".length, -"</p>".length);
}

Deno.test("there are at least a hundred attempts of at least ten kinds", () => {
  const kinds = [...Object.values(REFUSED), ...Object.values(CHANGES), TEMPLATES];
  assert.ok(kinds.length >= 10);
  assert.ok(kinds.flatMap((kind) => Object.keys(kind)).length >= 100);
});

Deno.test("the helpers detect a successful attempt and a changed page", async () => {
  const { outcomes } = await attempt([tries("return 1 + 1")]);
  assert.equal(shown(outcomes[0]), "GOT 2");
  // Modules of one realm share a sandbox. A module can therefore change a mutable object that
  // another module of the realm exports, such as `mood`.
  const spoils = tries(`const { mood } = await import("./later.js"); mood.now = "evil"`);
  assert.ok((await attempt([spoils])).later !== UNTOUCHED);
});

for (const [kind, attempts] of Object.entries(REFUSED)) {
  Deno.test(`card code gets nothing from: ${kind}`, async () => {
    // An attempt that uses `import.meta.url` expects that its module is `try.js`. Only the first
    // module of a task has this name, so each such attempt runs in a task of its own.
    for (const [name, code] of Object.entries(attempts)) {
      const { outcomes: [outcome] } = /import\.meta\.url/.test(code)
        ? await attempt([tries(code)])
        : { outcomes: [null] };
      if (outcome) assert.match(shown(outcome), /^REFUSED /, name);
    }
    const { outcomes, later } = await attempt(Object.values(attempts).map(tries));
    for (const [at, name] of Object.keys(attempts).entries()) {
      if (/import\.meta\.url/.test(attempts[name])) continue;
      assert.match(shown(outcomes[at]), /^REFUSED /, name);
    }
    assert.equal(later, UNTOUCHED);
  });
}

for (const [kind, attempts] of Object.entries(CHANGES)) {
  Deno.test(`card code can't change a later page through: ${kind}`, async () => {
    const { outcomes, later } = await attempt(Object.values(attempts).map(tries));
    for (const outcome of outcomes) rendered(outcome);
    assert.equal(later, UNTOUCHED);
  });
}

Deno.test("templates can't change a later page through their objects", async () => {
  const modules = Object.values(TEMPLATES).map((template) =>
    `${HEAD} ${SPOIL}
    export class Try extends Card {
      static fields = { next: linksTo(() => Card) };
      static isolated = ${template};
    }`
  );
  const { later } = await attempt(modules);
  assert.equal(later, UNTOUCHED);
});

for (
  const [what, statement] of [
    ["a file", `import "file:///etc/hostname" with { type: "text" };`],
    ["another host", `import "http://127.0.0.1:65000/x.js";`],
    ["a package", `import "npm:is-number@7.0.0";`],
    ["Node's own modules", `import "node:fs";`],
    ["data", `import "data:text/javascript,1";`],
    ["node:vm for a re-export", `export * from "node:vm";`],
  ]
) {
  Deno.test(`card code can't import ${what} with a declaration`, async () => {
    const task = cardsTask({ try: doc("./try", "Try") });
    const card = byPath(await run({ [`${BLOG}try.js`]: statement }, task)).try;
    const { status, message } = failed(card);
    assert.ok(status === 403 || status === 404, String(status));
    assert.match(message, /can't be imported, only|There is no module http:\/\/127/);
  });
}

Deno.test("the Worker's permissions alone refuse all access", async () => {
  const attempts = [
    `Deno.readTextFileSync("/etc/hostname")`,
    `(await import("node:fs")).readFileSync("/etc/hostname")`,
    `(await fetch("http://127.0.0.1:65000/")).status`,
    `await Deno.connect({ port: 65000 })`,
    `await import("http://127.0.0.1:65000/" + "x.js")`,
    `Deno.env.toObject()`,
    `new Deno.Command("id").outputSync()`,
    `Deno.dlopen("/x.so", {})`,
    `(await import("node:os")).hostname()`,
    `new Worker("data:text/javascript,", { type: "module", deno: { permissions: { read: true } } })`,
  ];
  const code = `self.onmessage = async () => { const got = [];
    ${
    attempts.map((each) => `try { got.push("GOT " + ${each}) } catch (e) { got.push(String(e)) }`)
      .join(";")
  }; self.postMessage(got); };`;
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(code)}`, {
    type: "module",
    deno: { permissions: PERMISSIONS },
  });
  const outcomes = await new Promise<string[]>((resolve) => {
    worker.onmessage = (event) => resolve(event.data);
    worker.postMessage(null);
  });
  worker.terminate();
  assert.equal(outcomes.length, attempts.length);
  for (const outcome of outcomes) assert.match(outcome, /Requires \w+ (import )?access|NotCapable/);
});

Deno.test("a module can't change a card type that it imports", async () => {
  const modules = [
    `const { Later } = await import("./later.js"); Later.isolated = () => "evil"`,
    `const { Later } = await import("./later.js"); Later.fields.title.read = () => "evil"`,
    `const { Later } = await import("./later.js");
      Object.defineProperty(Later.prototype, "title", { get: () => "evil" })`,
  ].map(tries);
  modules.push(`import { Later } from "./later.js"; ${tries("Later.isolated = () => 'evil'")}`);
  assert.equal((await attempt(modules)).later, UNTOUCHED);
});

Deno.test("a type's key has its own module, even if another re-exports it", async () => {
  const files = {
    [`${BLOG}later.js`]: LATER,
    [`${BLOG}a.js`]:
      `import { Card } from "@realm/base"; export { Later as Claimed } from "./later.js";
      export class A extends Card {}`,
  };
  const task = cardsTask({ a: doc("./a", "A"), later }, { [`${BLOG}two`]: TWO });
  const { search } = rendered(byPath(await run(files, task)).later);
  assert.equal(search._types, [`${BLOG}later/Later`, "@realm/base/Card"]);
});

Deno.test("an `import source` is refused and other cards are rendered", async () => {
  const files = {
    [`${BLOG}x.js`]: "export default 1",
    [`${BLOG}odd.js`]: `import source x from "./x.js"; ${tries("return 1")}`,
    [`${BLOG}try.js`]: tries("return 1"),
  };
  const task = cardsTask({ odd: doc("./odd", "Try"), try: doc("./try", "Try") });
  const cards = byPath(await run(files, task));
  assert.match(failed(cards.odd).message, /import source is not supported/);
  rendered(cards.try);
});

Deno.test("a module has one instance even if another importer fails", async () => {
  const code = `
    export const once = globalThis.Object.freeze({});`;
  const files = {
    [`${BLOG}once.js`]: code,
    [`${BLOG}bad.js`]: `import "./missing.js"; import { once } from "./once.js"; export { once };`,
    [`${BLOG}try.js`]: tries(`
      const name = ["./on", "ce.js"].join("");
      const [, first] = await Promise.allSettled([import("./bad" + ".js"), import(name)]);
      const again = await import("./once.js");
      if (first.value.once !== again.once) throw new Error("two instances");
      return "one";`),
  };
  const { try: tried } = byPath(await run(files, cardsTask({ try: doc("./try", "Try") })));
  assert.equal(shown(tried), "GOT one");
});

Deno.test("card code can't write to the stdout of the host", async () => {
  const forged = JSON.stringify({ type: "card", url: `${BLOG}try`, html: {}, forged: true });
  const files = {
    [`${BLOG}try.js`]: tries(`console.log(${JSON.stringify(forged)}); return "logged"`),
  };
  const answer = await run(files, cardsTask({ try: doc("./try", "Try") }));
  assert.equal(shown(byPath(answer).try), "GOT logged");
  assert.ok(!answer.stdout.includes("\n" + forged));
  const types = answer.responses.map(({ type }) => type).filter((type) => type !== "needs");
  assert.equal(types, ["card", "done"]);
});

Deno.test("no object that card code can reach has the nonce", async () => {
  const code = tries(`
    const seen = new Set(); const texts = [];
    const look = (o, depth) => {
      if (typeof o === "string") texts.push(o);
      if (o === null || (typeof o !== "object" && typeof o !== "function") || seen.has(o)) return;
      if (depth > 12) return;
      seen.add(o);
      for (const key of Reflect.ownKeys(o)) {
        try { look(Reflect.getOwnPropertyDescriptor(o, key).value, depth + 1) } catch {}
      }
      look(Reflect.getPrototypeOf(o), depth + 1);
    };
    look(globalThis, 0); look(await import("@realm/base"), 0); look(await import("preact"), 0);
    return texts.some((text) => text.includes(${JSON.stringify(NONCE)})) ? "found" : "looked";`);
  const answer = await run({ [`${BLOG}try.js`]: code }, cardsTask({ try: doc("./try", "Try") }));
  assert.equal(shown(byPath(answer).try), "GOT looked");
});

Deno.test("a card with an unhandled rejection and the next are rendered", async () => {
  const files = { [`${BLOG}try.js`]: tries(`Promise.reject(new Error("loose")); return 1;`) };
  const tried = doc("./try", "Try");
  const cards = byPath(await run(files, cardsTask({ one: tried, two: tried })));
  assert.equal(rendered(cards.one).html.isolated, "GOT 1");
  assert.equal(rendered(cards.two).html.isolated, "GOT 1");
});
