/**
 * Tests the limits for card code, such as the time limit. The host (`host.ts`) is the main program
 * of the process that runs card code. If a card hangs, this process ends, and a new process renders
 * the remaining cards.
 */
import * as assert from "./assert.ts";
import {
  BLOG,
  byPath,
  type CardResponse,
  cardsTask,
  doc,
  failed,
  giveTask,
  line,
  rendered,
  responsesIn,
  run,
  sourcesOf,
  startHost,
} from "./testing.ts";

/** The time limit for each card. It is long enough to load a module on a busy machine. */
const LIMIT_MS = 1_000;

const GOOD = `import { Card } from "@realm/base";
  export class Good extends Card { static isolated = () => "good"; }`;
const HANG = "for (;;);";
const good = doc("./good", "Good");

function card(body: string): string {
  return `import { Card } from "@realm/base"; export class Card1 extends Card { ${body} }`;
}

Deno.test("a card with an endless loop fails and other cards are rendered", async () => {
  const files = {
    [`${BLOG}good.js`]: GOOD,
    [`${BLOG}loop.js`]: card(`static isolated = () => { ${HANG} }`),
  };
  const loop = doc("./loop", "Card1");
  const answer = await run(files, cardsTask({ before: good, loop, after: good }), LIMIT_MS);
  const cards = byPath(answer);
  assert.equal(failed(cards.loop).status, 504);
  assert.equal(failed(cards.loop).message, "Rendering took longer than 1000 ms");
  rendered(cards.before);
  rendered(cards.after);
  const types = answer.responses.map(({ type }) => type).filter((type) => type !== "needs");
  assert.equal(types, ["card", "card", "stopped", "card", "done"]);
});

for (
  const [what, body] of [
    ["loops for ever when it is loaded", HANG],
    ["waits for ever when it is loaded", "await new Promise(() => {});"],
  ]
) {
  Deno.test(`a module that ${what} uses up the time limit only once`, async () => {
    const files = { [`${BLOG}good.js`]: GOOD, [`${BLOG}hang.js`]: body };
    const hang = doc("./hang", "X");
    const cards = byPath(
      await run(files, cardsTask({ one: hang, good, two: hang, three: hang }), LIMIT_MS),
    );
    assert.equal(failed(cards.one).status, 504);
    assert.match(failed(cards.one).message, /luke\/blog\/hang took longer than 1000 ms to load$/);
    assert.equal(failed(cards.one).module, `${BLOG}hang`);
    assert.equal(failed(cards.one).card, `${BLOG}one`);
    assert.equal(failed(cards.three), { ...failed(cards.one), card: `${BLOG}three` });
    assert.ok(cards.one.ms >= LIMIT_MS);
    assert.ok(cards.two.ms + cards.three.ms < LIMIT_MS);
    rendered(cards.good);
  });
}

Deno.test("a linked card whose module hangs shows as unavailable", async () => {
  const files = {
    [`${BLOG}hang.js`]: HANG,
    [`${BLOG}post.js`]:
      `import { Card, Embed, linksTo } from "@realm/base"; import { h } from "preact";
      export class Post extends Card {
        static fields = { author: linksTo(() => Card) };
        static isolated = ({ card }) => h(Embed, { card: card.author });
      }`,
  };
  const post = doc("./post", "Post", {}, { author: "./author" });
  const author = doc("./hang", "X", { name: "Slow" });
  const cards = byPath(
    await run(files, cardsTask({ one: post, two: post }, { [`${BLOG}author`]: author }), LIMIT_MS),
  );
  assert.match(rendered(cards.one).html.isolated, /Slow <small>unavailable/);
  assert.match(rendered(cards.two).html.isolated, /Slow <small>unavailable/);
});

Deno.test("the card after one that leaves endless microtasks is rendered", async () => {
  const files = {
    [`${BLOG}good.js`]: GOOD,
    [`${BLOG}later.js`]: card(`static head = () => {
      const again = () => queueMicrotask(again);
      again();
    }`),
  };
  const later = doc("./later", "Card1");
  const cards = byPath(await run(files, cardsTask({ later, after: good }), LIMIT_MS));
  rendered(cards.after);
});

Deno.test("the cards after a card that ends its own Worker are rendered", async () => {
  const files = {
    [`${BLOG}good.js`]: GOOD,
    [`${BLOG}exit.js`]: card("static isolated = () => close()"),
  };
  const cards = byPath(
    await run(files, cardsTask({ exit: doc("./exit", "Card1"), after: good }), LIMIT_MS),
  );
  failed(cards.exit);
  rendered(cards.after);
});

Deno.test("the host exits when stdin is closed, even while a card loops", async () => {
  const files = { [`${BLOG}good.js`]: GOOD, [`${BLOG}hang.js`]: HANG };
  const minute = 60_000;
  const task = { ...cardsTask({ good, hang: doc("./hang", "X") }), sources: sourcesOf(files) };
  const host = await startHost(task, minute);
  // The host requests both cards in advance, so the second card begins to loop although the test
  // only waits for the result of the first card.
  await listener(host)("card");
  await host.writer.close();
  const from = performance.now();
  assert.equal((await host.status).code, 0);
  assert.ok(performance.now() - from < 5_000);
});

Deno.test("answers before a card that kills its process are complete", async () => {
  const files = {
    [`${BLOG}good.js`]: GOOD,
    [`${BLOG}kill.js`]: `const held = []; for (;;) held.push(new Array(1e6).fill(1.5));`,
  };
  const task = cardsTask({ good, kill: doc("./kill", "X"), after: good });
  const answer = await run(files, task, 60_000);
  assert.equal(Object.keys(byPath(answer)), ["good"]);
  assert.ok(answer.code !== 0);
});

const CHAIN = `import { Card, linksTo, string } from "@realm/base";
  export class Chain extends Card {
    static fields = { next: linksTo(() => Card) };
    static isolated = ({ card }) => {
      for (const until = Date.now() + 600; Date.now() < until;);
      return card.next?.next?.next?.cardTitle ?? "the end";
    };
  }`;

Deno.test("a card has one time limit, however often it requests documents", async () => {
  const files = { [`${BLOG}chain.js`]: CHAIN, [`${BLOG}good.js`]: GOOD };
  const chain = (next?: string) => doc("./chain", "Chain", {}, next ? { next } : {});
  const linked = { [`${BLOG}b`]: chain("./c"), [`${BLOG}c`]: chain("./d"), [`${BLOG}d`]: chain() };
  const cards = byPath(
    await run(files, cardsTask({ a: chain("./b"), ends: chain(), good }, linked), LIMIT_MS),
  );
  assert.equal(failed(cards.a).message, "Rendering took longer than 1000 ms");
  assert.equal(rendered(cards.ends).html.isolated, "the end");
  rendered(cards.good);
});

Deno.test("a card that requests too many linked cards has an error", async () => {
  const links = Object.fromEntries(
    Array.from({ length: 20_001 }, (_, at) => [`all.${at}`, `./${at}`]),
  );
  const files = { [`${BLOG}good.js`]: GOOD };
  const cards = byPath(
    await run(files, cardsTask({ many: doc("./good", "Good", {}, links), good })),
  );
  assert.match(failed(cards.many).message, /^It requests too many cards or modules/);
  rendered(cards.good);
});

/**
 * Returns a function that reads a host's responses until `times` of them have the type `type` or
 * the type `other`. The function then returns all responses that the host has written so far.
 */
function listener(host: Deno.ChildProcess) {
  const reader = host.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let stdout = "";
  return async (type: string, times = 1, other = type) => {
    for (;;) {
      const said = responsesIn(stdout);
      if (said.filter((one) => one.type === type || one.type === other).length >= times) {
        return said;
      }
      const { value, done } = await reader.read();
      if (done) throw new Error(`The host ended; it said ${stdout}`);
      stdout += value;
    }
  };
}

const COUNT = `import { Card } from "@realm/base"; let seen = 0;
  export class Count extends Card { static isolated = () => String(++seen); }`;

Deno.test("a kept host starts a new sandbox for each task", async () => {
  const cards = cardsTask({ one: doc("./count", "Count"), two: doc("./count", "Count") });
  const task = { ...cards, sources: sourcesOf({ [`${BLOG}count.js`]: COUNT }) };
  const host = await startHost(task);
  const heard = listener(host);
  await heard("done");
  await host.writer.write(line({}));
  await heard("ready");
  await giveTask(host.writer, task);
  const said = await heard("done", 2);
  await host.writer.close();
  const shown = said.filter((one) => one.type === "card")
    .map((one) => rendered(one as CardResponse).html.isolated);
  assert.equal(shown, ["1", "2", "1", "2"]);
  await host.status;
});

Deno.test("a host whose last card left endless microtasks is not kept", async () => {
  const later = card(`static head = () => {
    const again = () => queueMicrotask(again);
    again();
  }`);
  const sources = sourcesOf({ [`${BLOG}later.js`]: later });
  const host = await startHost({ ...cardsTask({ later: doc("./later", "Card1") }), sources });
  const heard = listener(host);
  await heard("done");
  await host.writer.write(line({}));
  assert.ok((await heard("error", 1, "ready")).every(({ type }) => type !== "ready"));
  await host.status;
  await host.writer.close().catch(() => {});
});
