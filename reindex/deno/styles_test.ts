/** Tests that a page has the styles of all cards that it shows. */
import * as assert from "./assert.ts";
import { BASE_URL, BLOG, byPath, cardsTask, doc, PEOPLE, rendered, run } from "./testing.ts";

const FILES = {
  [`${PEOPLE}person.js`]: `
    import { Card, string } from "@realm/base";
    import { h } from "preact";
    export class Person extends Card {
      static fields = { name: string() };
      static styles = "b { color: red } /* </style> */";
      static embedded = ({ card }) => h("b", null, card.name);
    }
    export class Captain extends Person { static styles = "b { color: gold }"; }
    export class Mate extends Person {}
  `,
  [`${BLOG}crew.js`]: `
    import { Card, Embed, linksToMany, string } from "@realm/base";
    import { h } from "preact";
    export class Crew extends Card {
      static fields = { title: string(), people: linksToMany(() => Card) };
      static styles = ":scope { margin: 0 }";
      static isolated = ({ card }) => h("main", null,
        card.people.map((person) => h(Embed, { card: person })));
      static embedded = () => null; static fitted = () => null; static atom = () => null;
    }
    export class Plain extends Crew {
      static isolated = ({ card }) => h(Embed, { card: card.people[0], format: "fitted" });
    }
  `,
};
const LINKED = Object.fromEntries(
  ["Person", "Captain", "Person", "Mate"].map((type, index) => [
    `${PEOPLE}${index}`,
    doc("./person.js", type, { name: String(index) }),
  ]),
);
const people = (...paths: string[]) =>
  Object.fromEntries(paths.map((path, index) => [`people.${index}`, PEOPLE + path]));
const sheetsIn = (head: string) =>
  [...head.matchAll(/<style>(.*?)<\/style>/gs)].map(([, css]) => css);

Deno.test("a page has each shown card's styles once, those of ancestors first", async () => {
  const task = cardsTask(
    { crew: doc("./crew.js", "Crew", {}, people("0", "1", "2", "3")) },
    LINKED,
  );
  const { html } = rendered(byPath(await run(FILES, task)).crew);
  const sheets = sheetsIn(html.head);
  assert.equal(sheets.length, 3, html.head);
  assert.match(
    sheets[0],
    /^@scope \(body, \[data-styles~="\w+"\]\) to .*\{:scope \{ margin: 0 \}\}$/,
  );
  assert.match(sheets[1], /color: red \} \/\* <\\\/style> \*\/\}$/);
  assert.match(
    sheets[2],
    /^@scope \(\[data-styles~="\w+"\]\) to \(:scope \.rb-embed > \*\)\{.*gold/,
  );
  const [red, gold] = sheets.slice(1).map((css) => /"(\w+)"/.exec(css)?.[1]);
  assert.equal(
    [...html.isolated.matchAll(/data-styles="([^"]*)"/g)].map(([, keys]) => keys),
    [red, `${red} ${gold}`, red, red],
  );
  assert.doesNotMatch(html.head, /card\.css.*card\.css/);
});

Deno.test("a page with a default template links its styles before the realm's", async () => {
  const task = cardsTask({
    crew: doc("./crew.js", "Crew", {}, people("0")),
    plain: doc("./crew.js", "Plain", {}, people("0")),
  }, LINKED);
  task.realm = { ...task.realm, stylesheet: `${BLOG}theme.css` };
  const cards = byPath(await run(FILES, task));
  const [crew, plain] = [rendered(cards.crew).html.head, rendered(cards.plain).html.head];
  assert.doesNotMatch(crew, /card\.css/);
  const link = `<link rel="stylesheet" href="${BASE_URL}card.css"/>`;
  assert.equal(plain.split(link).length, 2, plain);
  assert.ok(plain.indexOf(link) < plain.indexOf("theme.css"));
  assert.match(plain, /theme\.css/);
});

Deno.test("a page has no styles of an earlier card", async () => {
  const task = cardsTask({
    first: doc("./crew.js", "Crew", {}, people("0", "1")),
    second: doc("./crew.js", "Crew"),
  }, LINKED);
  const { html } = rendered(byPath(await run(FILES, task)).second);
  assert.equal(sheetsIn(html.head).length, 1, html.head);
});

Deno.test("url() in a type's styles is relative to the type's module", async () => {
  const css = `a { background: url(./a.png), url( "../b c.png" ) , url('/c.svg?x#y'); }
    b { mask: url(#here), url(data:image/png;base64,x), url(http://h.example/d.png) }
    /* url(./comment.png) */ i::after { content: "url(./text.png)" } u { cursor: url() }`;
  const files = {
    [`${PEOPLE}deep/hull.js`]: `
      import { Card } from "@realm/base";
      class Inner extends Card { static styles = "u { background: url(inner.png) }"; }
      export class Hull extends Inner { static styles = ${JSON.stringify(css)}; }
    `,
    [`${BLOG}boat.js`]: `
      import { Card, Embed, linksTo, string } from "@realm/base";
      import { h } from "preact";
      import { Hull } from "${PEOPLE}deep/hull.js";
      export { Hull } from "${PEOPLE}deep/hull.js";
      export class Boat extends Hull {
        static fields = { hull: linksTo(() => Card) };
        static styles = "s { background: url(./boat.png) }";
        static isolated = ({ card }) => h(Embed, { card: card.hull });
      }
    `,
  };
  const task = cardsTask({ "far/away": doc("../boat.js", "Boat", {}, { hull: "./hull" }) }, {
    [`${BLOG}far/hull`]: doc("../boat.js", "Hull"),
  });
  task.imports = { [`${BLOG}boat.js`]: [`${PEOPLE}deep/hull.js`] };
  const { html } = rendered(byPath(await run(files, task))["far/away"]);
  const sheets = sheetsIn(html.head).join("\n");
  for (
    const url of [
      `url("${PEOPLE}deep/a.png")`,
      `url("${PEOPLE}b%20c.png")`,
      `url("${new URL(PEOPLE).origin}/c.svg?x#y")`,
      `url("${BLOG}boat.png")`,
      `url("${PEOPLE}deep/inner.png")`,
      "url(#here)",
      "url(data:image/png;base64,x)",
      "url(http://h.example/d.png)",
      "/* url(./comment.png) */",
      '"url(./text.png)"',
      "url()",
    ]
  ) assert.ok(sheets.includes(url), `${url} in ${sheets}`);
  // The page's own card is a `Boat`, and the embedded card is a `Hull`. `Boat` extends `Hull`, so
  // both cards use the same style sheets of `Hull`, with the same keys.
  const keys = [...html.isolated.matchAll(/data-styles="([^"]*)"/g)].map(([, each]) => each);
  for (const key of keys[0].split(" ")) assert.ok(sheets.includes(key), key);
});
