/** Tests the definitions of the card types of a module. */
import * as assert from "./assert.ts";
import { BASE_URL, BLOG, type Files, PEOPLE, run } from "./testing.ts";

const FILES = {
  [`${PEOPLE}person.js`]: `import { Card, string } from "@realm/base";
    export class Person extends Card {
      static displayName = "Somebody";
      static description = "One of us";
      static fields = { name: string({ label: "Full name", description: "As in the passport" }) };
    }
    class Hidden extends Person {}
    export class Author extends Hidden { static fields = { pen: string() }; }`,
  [`${BLOG}post.js`]: `import { Card, computed, contains, containsMany, date, linksTo, linksToMany,
      string, RealmConfig } from "@realm/base";
    import { Author, Person } from "${PEOPLE}person";
    export { Person } from "${PEOPLE}person";
    export const helper = 1;
    export class Post extends Card {
      static fields = {
        title: string(), published: date(), tags: containsMany(string()),
        author: linksTo(() => Author), readers: linksToMany(() => Person),
        editor: contains(Person), next: linksTo(() => Post), config: linksTo(() => RealmConfig),
        any: linksTo(() => Card), length: computed((card) => card.title.length, { type: "number" }),
      };
    }
    export class Special extends Post { static fields = { price: string() }; }`,
};
const BASE_CARD = { module: "@realm/base", name: "Card" };
const PERSON = { module: `${PEOPLE}person.js`, name: "Person" };
const POST = { module: `${BLOG}post.js`, name: "Post" };

async function define(files: Files, module: string, modules: string[]) {
  const { responses } = await run(files, { type: "definitions", module, modules }, 1_000);
  assert.equal(responses.at(-1), { type: "done" });
  return responses.filter(({ type }) => type !== "needs")[0];
}

async function definitions(module: string, modules: string[]) {
  const answer = await define(FILES, module, modules);
  assert.ok("definitions" in answer && answer.definitions, JSON.stringify(answer));
  return answer.definitions;
}

Deno.test("a definition has a card type's fields and ancestors", async () => {
  const { Person, Author } = await definitions(`${PEOPLE}person.js`, []);
  assert.equal(Person, {
    codeRef: PERSON,
    displayName: "Somebody",
    description: "One of us",
    fields: {
      name: {
        kind: "contains",
        type: "string",
        computed: false,
        label: "Full name",
        description: "As in the passport",
      },
    },
    adoptionChain: [BASE_CARD],
  });
  assert.equal(Author.displayName, "Author");
  assert.equal(Object.keys(Author.fields), ["name", "pen"]);
  assert.equal(
    Author.adoptionChain,
    [PERSON, BASE_CARD],
    "an ancestor that isn't exported is skipped",
  );
});

Deno.test("a class belongs to the module that exports it first", async () => {
  const found = await definitions(`${BLOG}post.js`, [`${PEOPLE}person.js`]);
  assert.equal(Object.keys(found).sort(), ["Person", "Post", "Special"]);
  assert.equal(found.Person.codeRef, PERSON);
  assert.equal(found.Special.adoptionChain, [POST, BASE_CARD]);
  const { fields } = found.Special;
  assert.equal(
    Object.fromEntries(Object.entries(fields).map(([key, { kind, type }]) => [key, [kind, type]])),
    {
      title: ["contains", "string"],
      published: ["contains", "date"],
      tags: ["containsMany", "string"],
      author: ["linksTo", { module: `${PEOPLE}person.js`, name: "Author" }],
      readers: ["linksToMany", PERSON],
      editor: ["contains", PERSON],
      next: ["linksTo", POST],
      config: ["linksTo", { module: "@realm/base", name: "RealmConfig" }],
      any: ["linksTo", BASE_CARD],
      length: ["contains", "number"],
      price: ["contains", "string"],
    },
  );
  assert.equal(fields.length.computed, true);
});

Deno.test("the card library's own modules have definitions too", async () => {
  const { RealmConfig } = await definitions(`${BASE_URL}realm-config.ts`, [`${BASE_URL}card.ts`]);
  assert.equal(RealmConfig.codeRef, { module: "@realm/base", name: "RealmConfig" });
});

Deno.test("a module that throws or hangs has an error instead of definitions", async () => {
  for (const [body, status] of [["throw new Error('boom')", 500], ["for (;;);", 504]] as const) {
    const answer = await define({ [`${BLOG}x.js`]: body }, `${BLOG}x.js`, []);
    assert.ok("error" in answer && answer.error?.status === status, JSON.stringify(answer));
  }
});
