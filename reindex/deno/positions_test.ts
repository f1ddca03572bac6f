/** Tests that errors contain the right line number of the author's source. */
import { equal } from "./assert.ts";
import { byPath, cardsTask, doc, failed, run } from "./testing.ts";

const BLOG = "http://localhost:4201/luke/blog/";

/** A source map that maps line 2 of the code to line 9 of the source. */
const MAP = btoa(JSON.stringify({ version: 3, sources: ["a.tsx"], names: [], mappings: ";AAQA" }));

Deno.test("an error names the module and the line of its source", async () => {
  const head = `import { Card } from "@realm/base"; export class A extends Card {}`;
  const files = {
    [`${BLOG}plain.js`]: `${head}\n\nthrow new Error("no", { cause: new Error("inner") });`,
    [`${BLOG}mapped.tsx`]:
      `${head}\nthrow new Error("no");\n//# sourceMappingURL=data:application/json;base64,${MAP}\n`,
    [`${BLOG}lacks.js`]: `${head}\n\nimport "./gone.js";`,
    [`${BLOG}template.js`]: `import { Card } from "@realm/base";
      const broken = (card) => card.title.gone.there;
      export class A extends Card {
        static isolated = ({ card }) => broken(card);
      }`,
    [`${BLOG}odd.js`]: `${head}\nconst error = new Error("odd");
      Object.defineProperty(error, "stack", { get() { throw 1; } });\nthrow error;`,
    [`${BLOG}lies.js`]: `${head}\nconst error = new Error("lies");
      error.stack = "at http://elsewhere/:1:1\\nat file:///etc/passwd:1:1";\nthrow error;`,
  };
  const names = ["plain", "mapped", "lacks", "template", "odd", "lies"];
  const task = cardsTask(Object.fromEntries(names.map((name) => [name, doc(`./${name}`, "A")])));
  const cards = byPath(await run(files, task));
  const places = names.map((name) => {
    const { module, line } = failed(cards[name]);
    return [module?.replace(BLOG, ""), line];
  });
  equal(places, [
    ["plain.js", 3],
    ["mapped.tsx", 9],
    ["lacks.js", 3],
    ["template.js", 2],
    ["odd", undefined],
    ["lies", undefined],
  ]);
});
