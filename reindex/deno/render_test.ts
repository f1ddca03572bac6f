/** Tests how the prerenderer renders the cards of one task. */
import * as assert from "./assert.ts";
import {
  BASE_URL,
  BLOG,
  byPath,
  cardsTask,
  doc,
  failed,
  PEOPLE,
  rendered,
  run,
} from "./testing.ts";

const POST = `
  import { Card, Embed, Link, Markdown, asset, computed, containsMany, date, formatDate, image,
    linksTo, markdown, number, string } from "@realm/base";
  import { h } from "preact";
  import { Person } from "${PEOPLE}person";
  export class Post extends Card {
    static displayName = "Post";
    static fields = {
      title: string(), body: markdown(), published: date(), cover: image(), words: number(),
      tags: containsMany(string()), author: linksTo(() => Person),
      shout: computed((card) => card.title.toUpperCase()),
    };
    static isolated = ({ card, realm }) => h("article", null,
      h("h1", null, card.title), h("time", null, formatDate(card.published)),
      h(Markdown, { text: card.body }), h(Embed, { card: card.author }),
      h(Link, { card: card.author }, "by"), h("img", { src: asset("./img/x.svg", card) }),
      h("i", null, import.meta.url));
  }
`;
const PERSON = `
  import { Card, Embed, linksToMany, string } from "@realm/base";
  import { h } from "preact";
  export class Person extends Card {
    static fields = { name: string(), friends: linksToMany(() => Person) };
    static embedded = ({ card }) => h("b", null, card.name, card.friends.map((friend) =>
      h(Embed, { card: friend })));
  }
`;
const FILES = { [`${BLOG}post.tsx`]: POST, [`${PEOPLE}person.tsx`]: PERSON };
const hello = doc("./post", "Post", {
  title: "Hello <you>",
  body: "See [more](./more), <b>raw</b> and ![](img/a.png)",
  published: "2026-03-01",
  cover: "./img/cover.png",
  words: 7,
  tags: ["a", "b"],
}, { author: "../../mango/people/ada" });
const ada = doc("./person", "Person", { name: "Ada" }, {
  "friends.0": "./bob",
  "friends.1": "./ada.json",
  "friends.2": "./nobody",
});
const bob = doc("/mango/people/person.tsx", "Person", { name: "Bob" }, { "friends.0": "ada" });
const LINKED = { [`${PEOPLE}ada`]: ada, [`${PEOPLE}bob`]: bob };

Deno.test("a result has every format, the search document and the links", async () => {
  const answer = await run(FILES, cardsTask({ hello }, LINKED));
  assert.equal(answer.code, 0);
  assert.equal(answer.responses.at(-1), { type: "done" });
  const { html, search, links, ms } = rendered(byPath(answer).hello);
  assert.match(html.isolated, /^<article><h1>Hello &lt;you><\/h1><time>1 March 2026<\/time>/);
  assert.match(html.isolated, new RegExp(`<a href="${BLOG}more">more</a>`));
  assert.match(html.isolated, /&lt;b&gt;raw/);
  assert.match(html.isolated, new RegExp(`<img src="${BLOG}img/a.png"`));
  assert.match(html.isolated, new RegExp(`<img src="${BLOG}img/x.svg"`));
  assert.match(html.isolated, new RegExp(`<a href="${PEOPLE}ada">by</a>`));
  assert.match(html.embedded, /class="rb-card rb-embedded"/);
  assert.match(html.fitted, /class="rb-card rb-fitted"/);
  assert.match(html.atom, new RegExp(`<a class="rb-atom" href="${BLOG}hello">Hello &lt;you></a>`));
  assert.match(html.head, /<title>Hello &lt;you> · Luke's blog<\/title>/);
  assert.match(html.head, new RegExp(`<link rel="canonical" href="${BLOG}hello"/>`));
  assert.match(html.head, new RegExp(`property="og:image" content="${BLOG}img/cover.png"`));
  assert.match(html.head, new RegExp(`<link rel="stylesheet" href="${BASE_URL}page.css"/>`));
  const { _fields, ...found } = search;
  assert.equal(found, {
    id: `${BLOG}hello`,
    title: "Hello <you>",
    body: "See [more](./more), <b>raw</b> and ![](img/a.png)",
    published: "2026-03-01T00:00:00.000Z",
    cover: `${BLOG}img/cover.png`,
    words: 7,
    tags: ["a", "b"],
    author: {
      id: `${PEOPLE}ada`,
      name: "Ada",
      friends: ["bob", "ada", "nobody"].map((name) => ({ id: PEOPLE + name })),
    },
    shout: "HELLO <YOU>",
    _type: { module: `${BLOG}post`, name: "Post" },
    _types: [`${BLOG}post/Post`, "@realm/base/Card"],
    _title: "Hello <you>",
    _text: "Hello <you>\nSee [more](./more), <b>raw</b> and ![](img/a.png)\na\nb\nHELLO <YOU>",
  });
  assert.equal(_fields, {
    title: "string",
    body: "markdown",
    published: "date",
    cover: "image",
    words: "number",
    tags: ["string"],
    author: { id: "id", name: "string", friends: [{ id: "id" }] },
    shout: "any",
  });
  assert.equal(links.sort(), [`${PEOPLE}ada`, `${PEOPLE}bob`, `${PEOPLE}nobody`]);
  assert.ok(ms > 0);
});

Deno.test("links to cards of another realm have its published address", async () => {
  const kept = doc("./person", "Person", { name: "Ada" }, { "friends.0": "./bob" });
  const task = {
    ...cardsTask({ hello }, { [`${PEOPLE}ada`]: kept, [`${PEOPLE}bob`]: bob }),
    addresses: { [PEOPLE]: "http://people.localhost:4201/" },
  };
  const post = POST.replace('card: card.author }, "by"', "card: card.author }, card.author.id");
  const files = { ...FILES, [`${BLOG}post.tsx`]: post };
  const { html, search, links } = rendered(byPath(await run(files, task)).hello);
  const published = "http://people.localhost:4201/ada";
  assert.match(html.isolated, new RegExp(`<a href="${published}">${published}</a>`));
  assert.match(html.head, new RegExp(`<link rel="canonical" href="${BLOG}hello"/>`));
  // Only the page has the address at which the other realm is published. In the search document and
  // in the result's `links`, the linked card's URL begins with the realm's own URL.
  assert.equal((search.author as { id: string }).id, `${PEOPLE}ada`);
  assert.equal(links.sort(), [`${PEOPLE}ada`, `${PEOPLE}bob`]);
});

Deno.test("links in a circle end with the format atom", async () => {
  const { html } = rendered(byPath(await run(FILES, cardsTask({ hello }, LINKED))).hello);
  const atom = `<span class="rb-embed rb-embed-atom" data-card-type="Person">` +
    `<a class="rb-atom" href="${PEOPLE}ada">Ada</a></span>`;
  assert.ok(html.isolated.includes(`<b>Bob${atom}</b>`), html.isolated);
});

Deno.test("a root-relative import is resolved against the public origin", async () => {
  const files = {
    ...FILES,
    [`${BLOG}writer.js`]: `import { Person } from "/mango/people/person";
      export class Writer extends Person { static isolated = () => "writer"; }`,
    [`${BLOG}stranger.js`]: `import "/mango/diary/secret.js";`,
  };
  const cards = byPath(
    await run(
      files,
      cardsTask({
        writer: doc("/luke/blog/writer", "Writer"),
        stranger: doc("./stranger", "X"),
      }),
    ),
  );
  assert.equal(rendered(cards.writer).html.isolated, "writer");
  assert.equal(failed(cards.stranger).status, 404);
  assert.match(failed(cards.stranger).message, /4201\/mango\/diary\/secret\.js/);
});

Deno.test("the import.meta.url of a module is its public URL", async () => {
  const answer = await run(FILES, cardsTask({ hello }, LINKED));
  assert.match(rendered(byPath(answer).hello).html.isolated, new RegExp(`<i>${BLOG}post.tsx</i>`));
});

Deno.test("a card is rendered if a linked card is missing or broken", async () => {
  const post = (author: string) => doc("./post", "Post", { title: "T" }, { author });
  const answer = await run(
    {
      ...FILES,
      [`${PEOPLE}sad.js`]: `throw new Error("sad")`,
      [`${PEOPLE}bad.js`]: `import { Card } from "@realm/base";
        export class Bad extends Card { static embedded = () => { throw new Error("bad") } }`,
    },
    cardsTask({
      missing: post("./nobody"),
      "no-url": post("http://"),
      sad: post(`${PEOPLE}sad-card`),
      bad: post(`${PEOPLE}bad-card`),
    }, {
      [`${PEOPLE}sad-card`]: doc("./sad.js", "Sad", { title: "A sad card" }),
      [`${PEOPLE}bad-card`]: doc("./bad.js", "Bad"),
    }),
  );
  const cards = byPath(answer);
  assert.equal(rendered(cards.missing).search.author instanceof Object, true);
  assert.equal(rendered(cards["no-url"]).search.author, null);
  assert.match(rendered(cards.sad).html.isolated, /rb-unavailable.*A sad card <small>unavailable/);
  assert.match(rendered(cards.bad).html.isolated, /rb-unavailable.*bad-card <small>unavailable/);
});

Deno.test("cards with types of @realm/base need no module of a realm", async () => {
  const cards = byPath(
    await run(
      {},
      cardsTask({
        index: doc("@realm/base", "CardsIndex"),
        realm: doc("@realm/base", "RealmConfig", { name: "Mine", iconURL: "./i.svg" }),
      }),
    ),
  );
  assert.match(rendered(cards.index).html.isolated, /Luke's blog<\/h1>.*Nothing here yet/);
  assert.equal(rendered(cards.index).search._title, "Luke's blog");
  assert.equal(rendered(cards.realm).search.iconURL, `${BLOG}i.svg`);
});

Deno.test("each kind of broken card has its own error, others are rendered", async () => {
  const module = (body: string) =>
    `import { Card, computed, linksTo, number, string } from "@realm/base";${body}`;
  const files = {
    ...FILES,
    [`${BLOG}syntax.js`]: "export class {",
    [`${BLOG}untranspiled.js`]: "406",
    [`${BLOG}throws.js`]: `throw new Error("boom", { cause: new TypeError("because") })`,
    [`${BLOG}imports.js`]: `import "./nowhere.js"`,
    [`${BLOG}names.js`]: `import { Nobody } from "./post.tsx"`,
    [`${BLOG}types.js`]: module(`
      export const notCard = 1;
      export class Number extends Card { static fields = { n: number() } }
      export class Computed extends Card { static fields = {
        up: computed((card) => card.nothing.toUpperCase()) } }
      export class Template extends Card { static fitted = () => { throw "just text" } }
      export class Nasty extends Card { static head = () => { throw { toString() { throw 1 } } } }
    `),
  };
  const answer = await run(
    files,
    cardsTask({
      syntax: doc("./syntax", "X"),
      untranspiled: doc("./untranspiled", "X"),
      throws: doc("./throws", "X"),
      again: doc("./throws", "X"),
      imports: doc("./imports", "X"),
      names: doc("./names", "X"),
      nowhere: doc("./nowhere", "X"),
      elsewhere: doc("http://example.com/x.js", "X"),
      unexported: doc("./types", "Other"),
      inherited: doc("./types", "toString"),
      "not-card": doc("./types", "notCard"),
      untyped: { data: {} },
      number: doc("./types", "Number", { n: "seven" }),
      computed: doc("./types", "Computed"),
      template: doc("./types", "Template"),
      nasty: doc("./types", "Nasty"),
      good: doc("./post", "Post", { title: "Good" }),
    }),
  );
  const cards = byPath(answer);
  const expected: Record<string, [number, RegExp]> = {
    syntax: [406, /luke\/blog\/syntax\.js/],
    untranspiled: [406, /no TSX/],
    throws: [500, /^boom$/],
    again: [500, /^boom$/],
    imports: [404, /luke\/blog\/nowhere\.js/],
    names: [422, /export named 'Nobody'/],
    nowhere: [404, /luke\/blog\/nowhere/],
    elsewhere: [404, /example\.com/],
    unexported: [404, /exports no "Other"; it exports Computed, Nasty, Number, Template, notCard/],
    inherited: [404, /exports no "toString"/],
    "not-card": [422, /notCard/],
    untyped: [422, /adoptsFrom/],
    number: [422, /^The field n should be a number, but it is "seven"$/],
    computed: [500, /^The field up of Computed can't be computed$/],
    template: [500, /^just text$/],
    nasty: [500, /can't be shown/],
  };
  for (const [path, [status, message]] of Object.entries(expected)) {
    const error = failed(cards[path]);
    assert.equal(error.status, status, path + JSON.stringify(error));
    assert.match(error.message, message, path);
    assert.doesNotMatch(JSON.stringify(error), /_at\/|file:|\\u001b|\n {4}at /, path);
  }
  assert.equal(failed(cards.throws).causes, ["because"]);
  assert.equal(failed(cards.throws).card, `${BLOG}throws`);
  assert.equal(failed(cards.again).card, `${BLOG}again`);
  assert.equal(failed(cards.template).title, "The fitted template failed");
  rendered(cards.good);
});
