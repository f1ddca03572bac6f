/** Tests the default templates, with card types that have fields but no templates. */
import * as assert from "./assert.ts";
import { BLOG, byPath, cardsTask, doc, PEOPLE, rendered, run } from "./testing.ts";

const FILES = {
  [`${BLOG}film.js`]: `
    import { Card, boolean, contains, containsMany, date, image, linksTo, linksToMany, markdown,
      number, string } from "@realm/base";
    export class Hall extends Card { static fields = { street: string(), city: string() }; }
    export class Film extends Card {
      static fields = {
        title: string(), summary: string(), still: image(), poster: image(), colour: boolean(),
        firstShown: number({ description: "A year" }), budget: number(), on: date(),
        genres: containsMany(string()), site: string(), hall: contains(Hall), body: markdown(),
        notes: markdown({ label: "Small print" }), halls: containsMany(() => Hall),
        sequel: linksTo(() => Film), more: linksToMany(() => Film), empty: string(),
      };
    }
    export class Tag extends Film { static displayName = "Tag"; }
  `,
};
const film = doc("./film.js", "Film", {
  title: "A <film>",
  summary: "About it",
  still: "./a.png",
  poster: "./b.png",
  colour: true,
  firstShown: 1987,
  budget: 1250000,
  on: "2026-03-01",
  genres: ["Sea", "Drama"],
  site: "https://example.org/film/",
  hall: { street: "1 Pier Road", city: "Sandsay" },
  body: "It *was*.",
  notes: "None.",
  halls: [{ city: "Quern" }],
}, { sequel: `${PEOPLE}two`, "more.0": `${PEOPLE}two` });
const two = doc(`${BLOG}film.js`, "Film", { title: "Two", site: "not a link", on: "2026-04-02" });

Deno.test("the default templates show every field with a value, by its type", async () => {
  const task = cardsTask({ film, index: doc("./film.js", "Tag") }, { [`${PEOPLE}two`]: two });
  const cards = byPath(await run(FILES, task));
  const { html } = rendered(cards.film);
  const shown = html.isolated.replaceAll(/ (title|loading)="[^"]*"/g, "");
  for (
    const part of [
      '<h1 class="rb-title">A &lt;film></h1><p class="rb-description">About it</p>',
      `<img class="rb-hero" src="${BLOG}a.png" alt/>`,
      `<img class="rb-image" src="${BLOG}b.png" alt/>`,
      "<dt>Colour</dt><dd>Yes</dd>",
      "<dt>First shown</dt><dd>1987</dd>",
      "<dt>Budget</dt><dd>1,250,000</dd>",
      '<time datetime="2026-03-01T00:00:00.000Z">1 March 2026</time>',
      '<ul class="rb-values"><li>Sea</li><li>Drama</li></ul>',
      '<a href="https://example.org/film/">example.org/film</a>',
      "<dt>Street</dt><dd>1 Pier Road</dd>",
      "<p>It <em>was</em>.</p>",
      '<h2 class="rb-heading">Small print</h2>',
      "<dd>Quern</dd>",
      `<a class="rb-atom" href="${PEOPLE}two">Two</a>`,
      '<p class="rb-meta">2 April 2026 · not a link</p>',
    ]
  ) assert.ok(shown.includes(part), `${part}\n  is not in ${shown}`);
  assert.doesNotMatch(html.isolated, /Empty|>Body<|<dt>Title/);
  assert.match(html.embedded, /rb-embedded.*rb-thumb.*A &lt;film>.*About it/);
  assert.match(html.fitted, /rb-fitted.*rb-thumb.*Film.*A &lt;film>.*About it/);
  assert.equal(html.atom, `<a class="rb-atom" href="${BLOG}film">A &lt;film></a>`);
});

Deno.test("the head of a realm's index has the realm's URL and name", async () => {
  const { html } = rendered(
    byPath(await run(FILES, cardsTask({ index: doc("./film.js", "Tag") }))).index,
  );
  assert.match(html.head, /<title>Luke's blog<\/title>/);
  assert.match(html.head, new RegExp(`<link rel="canonical" href="${BLOG}"/>`));
  assert.doesNotMatch(html.head, /description/);
});

Deno.test("the head's description is the card's summary or its first text", async () => {
  const cards = {
    own: doc("./film.js", "Film", { summary: "Its summary", body: "Its body" }),
    words: doc("./film.js", "Film", {
      body: '# Title\n\n![](x.png)\n\nIt *was* "so",\n[they](./a) `say` &amp; **know**.\n\nNext.',
    }),
    long: doc("./film.js", "Film", { body: "word ".repeat(1000) }),
    front: doc("@realm/base", "CardsIndex", { introduction: "Welcome to *us*." }),
  };
  const answers = byPath(await run(FILES, cardsTask(cards)));
  const said = (name: string) =>
    [...rendered(answers[name]).html.head.matchAll(/(?:og:|")description" content="([^"]*)"/g)]
      .map(([, content]) => content);
  assert.equal(said("own"), ["Its summary", "Its summary"]);
  assert.equal(said("words")[0], "It was “so”, they say &amp; know.");
  assert.equal(said("long")[0], `${"word ".repeat(40)}…`);
  assert.equal(said("front"), ["Welcome to us.", "Welcome to us."]);
});
