/** Tests fields that have the name of a built-in property, such as `constructor`. */
import * as assert from "./assert.ts";
import { BLOG, byPath, cardsTask, doc, failed, rendered, run } from "./testing.ts";

const NAMES = ["constructor", "__proto__", "toString", "hasOwnProperty", "valueOf", "length"];
const FILES = {
  [`${BLOG}odd.js`]: `
    import { Card, Embed, contains, linksTo, linksToMany, string } from "@realm/base";
    import { h } from "preact";
    const NAMES = ${JSON.stringify(NAMES)};
    const texts = Object.fromEntries(NAMES.map((name) => [name, string()]));
    const show = ({ card }) => h("p", null, NAMES.map((name) => "<" + card[name] + ">").join(""));
    export class Odd extends Card { static fields = texts; static isolated = show; }
    export class Holder extends Card {
      static fields = { inner: contains(Odd) };
      static isolated = ({ card }) => show({ card: card.inner });
    }
    export class Link extends Card {
      static fields = { constructor: linksTo(() => Odd), ["__proto__"]: linksToMany(() => Odd) };
      static isolated = ({ card }) => h("p", null, card.constructor?.toString,
        card["__proto__"].map((each) => each.toString).join());
    }
    export class Plain extends Card { static fields = texts; }
    export class Numbered extends Card {
      static fields = { id: string() };
      static isolated = ({ card }) => h("p", null, card.id);
    }
    export class Literal extends Card { static fields = { __proto__: string() }; }
  `,
};
/** The values of all fields. They are parsed from JSON, so that `__proto__` is an own property. */
const ALL = JSON.parse(`{${NAMES.map((name) => `"${name}": "${name}!"`).join()}}`);

Deno.test("fields may have the names of every object's properties", async () => {
  const task = cardsTask({
    all: doc("./odd", "Odd", ALL),
    none: doc("./odd", "Odd"),
    inner: doc("./odd", "Holder", { inner: ALL }),
    links: doc("./odd", "Link", {}, { constructor: "./all", ["__proto__.0"]: "./none" }),
    unlinked: doc("./odd", "Link"),
    plain: doc("./odd", "Plain", ALL),
    missing: doc("./odd", "Odd", { isPrototypeOf: "x" }),
    literal: doc("./odd", "Literal", {}),
    numbered: doc("./odd", "Numbered", { id: "7" }),
  });
  task.linked = Object.fromEntries(task.cards.map(({ url, doc }) => [url, doc]));
  const cards = byPath(await run(FILES, task));
  const values = NAMES.map((name) => `&lt;${name}!>`).join("");
  for (const path of ["all", "inner"]) {
    assert.equal(rendered(cards[path]).html.isolated, `<p>${values}</p>`, path);
  }
  assert.equal(rendered(cards.none).html.isolated, `<p>${"&lt;>".repeat(NAMES.length)}</p>`);
  assert.equal(rendered(cards.links).html.isolated, "<p>toString!</p>");
  assert.equal(rendered(cards.unlinked).html.isolated, "<p></p>");
  assert.match(rendered(cards.plain).html.isolated, /valueOf!/);
  const { search } = rendered(cards.all);
  for (const name of NAMES) {
    assert.equal(Object.getOwnPropertyDescriptor(search, name)?.value, `${name}!`, name);
    assert.ok(Object.hasOwn(search._fields as object, name), name);
  }
  // In searches `id` is the card's URL, even if the type has a field of this name.
  assert.equal(rendered(cards.numbered).search.id, `${BLOG}numbered`);
  assert.match(rendered(cards.numbered).html.isolated, /7/);
  assert.equal(failed(cards.missing).field, "isPrototypeOf");
  assert.match(failed(cards.literal).message, /written \["__proto__"\]: string\(\)$/);
});
