/** Tests the errors of cards that don't fit their type. */
import * as assert from "./assert.ts";
import { BLOG, byPath, cardsTask, doc, failed, PEOPLE, rendered, run } from "./testing.ts";

const STOP = `
  import { Card, boolean, computed, contains, containsMany, date, image, linksTo, linksToMany,
    number, string } from "@realm/base";
  export class Place extends Card {
    static fields = { city: string(), metres: number(), country: linksTo(() => Card) };
  }
  export class Stop extends Card {
    static displayName = "Bus stop";
    static fields = {
      title: string(), shelter: boolean({ default: true }), since: date(), sign: image(),
      lines: containsMany(number(), { default: [1] }), place: contains(Place),
      places: containsMany(Place), next: linksTo(() => Stop), near: linksToMany(() => Stop),
      loud: computed((card) => card.title.toUpperCase()),
      far: computed((card) => card.place.metres.toFixed()),
    };
    static isolated = ({ card }) => [card.title, card.shelter, card.lines].join();
  }
  export class Early extends Card {
    static fields = { first: computed((card) => card.place.metres), place: contains(Place) };
  }
  export class Bend extends Stop {
    static fields = { ...super.fields, radius: number(),
      chain: computed((card) => { throw new Error("outer", { cause: new Error("inner") }) }) };
  }
`;
const FILES = { [`${BLOG}stop.tsx`]: STOP };
const stop = (attributes: Record<string, unknown>, links: Record<string, string> = {}) =>
  doc("./stop", "Stop", { place: { metres: 1 }, ...attributes }, links);

Deno.test("the error of a wrong field names the field and what was expected", async () => {
  const expected: Record<string, [ReturnType<typeof doc>, number, string, RegExp]> = {
    misspelt: [
      stop({ titel: "A" }),
      422,
      "titel",
      /^Bus stop has no field "titel"; did you mean title\?$/,
    ],
    unknown: [stop({ colour: "red" }), 422, "colour", /no field "colour"; it has title, shelter, /],
    inherited: [stop({ toString: 1 }), 422, "toString", /no field "toString"; it has title/],
    inner: [
      stop({ places: [{ city: "A" }, { cty: "B" }] }),
      422,
      "places.1.cty",
      /^Place has no field "places\.1\.cty"; did you mean city\?$/,
    ],
    "link-name": [stop({}, { nxt: "./a" }), 422, "nxt", /did you mean next\?/],
    "link-inside": [stop({}, { "places.0.contry": "./a" }), 422, "places.0.contry", /country/],
    "link-as-value": [stop({ next: "./a" }), 422, "next", /belongs under relationships/],
    "value-as-link": [stop({}, { title: "./a" }), 422, "title", /belongs under attributes/],
    text: [stop({ title: { a: 1 } }), 422, "title", /title should be text, but it is an object/],
    flag: [stop({ shelter: "yes" }), 422, "shelter", /should be true or false, but it is "yes"/],
    day: [stop({ since: "1 May" }), 422, "since", /should be a date such as 2026-03-01/],
    list: [stop({ lines: 7 }), 422, "lines", /should be a list, but it is 7/],
    item: [stop({ lines: [1, "two"] }), 422, "lines", /lines\[1\] should be a number, .* "two"/],
    card: [stop({ place: "here" }), 422, "place", /should be an object, but it is "here"/],
    deeper: [
      stop({ places: [{ metres: "far" }] }),
      422,
      "places.0.metres",
      /metres should be a number/,
    ],
    "inside-computed": [
      doc("./stop", "Early", { place: { metres: "far" } }),
      422,
      "place.metres",
      /^The field metres should be a number, but it is "far"$/,
    ],
    computed: [
      doc("./stop", "Stop", { title: "T" }),
      500,
      "far",
      /^The field far of Bus stop can't be computed$/,
    ],
    chain: [
      doc("./stop", "Bend", { place: { metres: 1 } }),
      500,
      "chain",
      /^The field chain of Bend can't be computed$/,
    ],
  };
  const cards = Object.fromEntries(Object.entries(expected).map(([path, [card]]) => [path, card]));
  const answers = byPath(
    await run(
      FILES,
      cardsTask({ ...cards, good: stop({ title: "Good", gone: null }, { next: "./good" }) }),
    ),
  );
  for (const [path, [, status, field, message]] of Object.entries(expected)) {
    const error = failed(answers[path]);
    assert.equal([error.status, error.field, error.card], [status, field, BLOG + path], path);
    assert.match(error.message, message, path);
  }
  assert.equal(failed(answers.chain).causes, ["outer", "inner"]);
  assert.match(failed(answers.computed).causes[0], /reading 'metres'|toFixed/);
  // Fields that the document leaves out have their default values.
  assert.equal(rendered(answers.good).html.isolated, "Good,true,1");
});

Deno.test("broken fields of a linked card are no error of the card that links", async () => {
  const answers = byPath(
    await run(
      FILES,
      cardsTask({ first: stop({ title: "First" }, { next: `${PEOPLE}other` }) }, {
        [`${PEOPLE}other`]: doc(`${BLOG}stop`, "Stop", { titel: "?" }),
      }),
    ),
  );
  rendered(answers.first);
});
