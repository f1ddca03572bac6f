/**
 * Tests large cards, large numbers of cards and modules, and circular links and imports. Each card
 * is rendered or gets its own error.
 */
import type { CardDocument } from "@realm/base";
import * as assert from "./assert.ts";
import { BLOG, byPath, cardsTask, doc, failed, rendered, run } from "./testing.ts";

const GOOD =
  `import { Card, Embed, linksToMany, string } from "@realm/base"; import { h } from "preact";
  export class Good extends Card {
    static fields = { title: string(), all: linksToMany(() => Good) };
    static isolated = ({ card }) => h("p", null, card.title.length, " ",
      card.all.map((one) => h(Embed, { card: one, format: "atom" })));
  }`;

Deno.test("a card of 512 KiB and a card with 5,000 links are rendered", async () => {
  const many = Array.from({ length: 5_000 }, (_, index) => index);
  const task = cardsTask(
    {
      large: doc("./good", "Good", { title: "x".repeat(512 * 1024) }),
      many: doc("./good", "Good", {}, Object.fromEntries(many.map((i) => [`all.${i}`, `./${i}`]))),
      circle: doc("./good", "Good", {}, { "all.0": "./circle", "all.1": "./many" }),
    },
    Object.fromEntries(many.map((i) => [`${BLOG}${i}`, doc("./good", "Good", { title: `${i}` })])),
  );
  const cards = byPath(await run({ [`${BLOG}good.js`]: GOOD }, task));
  assert.match(rendered(cards.large).html.isolated, /^<p>524288 <\/p>$/);
  assert.equal(rendered(cards.many).links.length, 5_000);
  assert.equal(rendered(cards.many).html.isolated.split("rb-embed-atom").length, 5_001);
  rendered(cards.circle);
});

Deno.test("cards of fifty modules that import each other are rendered", async () => {
  const files = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [
    `${BLOG}m${index}.js`,
    `import { Card, linksTo, string } from "@realm/base";
     import { M${(index + 1) % 50} as Next } from "./m${(index + 1) % 50}.js";
     export class M${index} extends Card {
       static fields = { title: string(), next: linksTo(() => Next) };
       static isolated = ({ card }) => card.title + " " + card.next?.next?.title;
     }`,
  ]));
  const names = Array.from({ length: 50 }, (_, index) => index);
  const cards = byPath(
    await run(
      files,
      cardsTask(Object.fromEntries(names.map((index) => [
        `c${index}`,
        doc(`./m${index}`, `M${index}`, { title: `${index}` }, { next: `./c${(index + 1) % 50}` }),
      ]))),
    ),
  );
  for (const index of names) {
    assert.equal(rendered(cards[`c${index}`]).html.isolated, `${index} ${(index + 2) % 50}`);
  }
});

Deno.test("a circle of classes that extend each other is an error, not a hang", async () => {
  const files = {
    [`${BLOG}good.js`]: GOOD,
    [`${BLOG}a.js`]: `import { B } from "./b.js"; export class A extends B {}`,
    [`${BLOG}b.js`]: `import { A } from "./a.js"; export class B extends A {}`,
  };
  const task = cardsTask({ a: doc("./a", "A"), b: doc("./b", "B"), good: doc("./good", "Good") });
  const cards = byPath(await run(files, task));
  assert.match(failed(cards.a).message, /before initialization/);
  assert.match(failed(cards.b).message, /before initialization/);
  rendered(cards.good);
});

Deno.test("1,000 cards of a broken module get its error from one process", async () => {
  const bad = Array.from({ length: 1_000 }, (_, i) => [`bad${i}`, doc("./bad", "Bad")]);
  const files = { [`${BLOG}good.js`]: GOOD, [`${BLOG}bad.js`]: `throw new Error("not today")` };
  const good = doc("./good", "Good", { title: "four" });
  const answer = await run(files, cardsTask({ ...Object.fromEntries(bad), good }));
  const { good: last, ...others } = byPath(answer);
  assert.equal(Object.keys(others).length, 1_000);
  for (const [path, card] of Object.entries(others)) {
    assert.equal(failed(card).message, "not today");
    assert.equal(failed(card).card, BLOG + path);
    assert.equal(failed(card).module, `${BLOG}bad.js`);
  }
  assert.equal(answer.processes, 1);
  assert.match(rendered(last).html.isolated, /^<p>4 /);
});

const CHAIN = `import { Card, linksTo, string } from "@realm/base";
  const walk = (card) => card ? card.title + walk(card.next) : "";
  export class Link1 extends Card {
    static fields = { title: string(), next: linksTo(() => Link1) };
    static isolated = ({ card }) => walk(card);
  }`;

/** A chain of `length` cards. Each card links to the next one, and the last to a missing card. */
function chain(length: number): Record<string, CardDocument> {
  return Object.fromEntries(Array.from({ length }, (_, i) => [
    `${BLOG}${i}`,
    doc("./chain", "Link1", { title: `${i} ` }, { next: `./${i + 1}` }),
  ]));
}

Deno.test("only the cards that a card shows are requested, at any depth", async () => {
  const linked = chain(40);
  linked[`${BLOG}other`] = doc("./chain", "Link1");
  const first = linked[`${BLOG}0`];
  const answer = await run({ [`${BLOG}chain.js`]: CHAIN }, cardsTask({ "0": first }, linked));
  const card = rendered(byPath(answer)["0"]);
  assert.equal(card.html.isolated, Array.from({ length: 40 }, (_, i) => `${i} `).join(""));
  assert.equal(card.links.length, 40);
  const asked = answer.responses.flatMap((one) => one.type === "needs" ? one.documents : []);
  assert.equal(asked.sort(), card.links.sort());
});

Deno.test("a card that follows too many links fails, the next is rendered", async () => {
  const linked = chain(500);
  const task = cardsTask({ "0": linked[`${BLOG}0`], "490": linked[`${BLOG}490`] }, linked);
  const cards = byPath(await run({ [`${BLOG}chain.js`]: CHAIN }, task));
  assert.equal(failed(cards["0"]).status, 422);
  assert.equal(failed(cards["0"]).title, "The card follows too many links");
  rendered(cards["490"]);
});

Deno.test("values that an aborted render has cached don't reach the page", async () => {
  const files = {
    [`${BLOG}chain.js`]: CHAIN.replace("static isolated", "static embedded"),
    [`${BLOG}memo.js`]: `import { Card, linksTo } from "@realm/base";
      const seen = {};
      export class Memo extends Card {
        static fields = { next: linksTo(() => Card) };
        static isolated = ({ card }) => seen[card.id] ??= card.next?.next?.title ?? "nothing";
      }`,
  };
  const memo = doc("./memo", "Memo", {}, { next: "./0" });
  const cards = byPath(await run(files, cardsTask({ memo }, chain(2))));
  assert.equal(rendered(cards.memo).html.isolated, "1 ");
});
