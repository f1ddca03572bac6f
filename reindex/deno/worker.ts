/**
 * The program of the sandbox, a Worker that the host (`host.ts`) starts. It loads card modules,
 * renders cards, and builds definitions, which describe card types.
 *
 * This module shares its global scope with card code, which might find a secret or manipulate an
 * answer. So the module holds no secret. To find out which card an answer belongs to, the host uses
 * the order of its own requests, and not the answer's content.
 */
import { Cards } from "./cards.ts";
import { define } from "./definitions.ts";
import { errorDocument } from "./errors.ts";
import { Loader } from "./loader.ts";
import { freezeShared, lockDown } from "./lockdown.ts";
import type { Base } from "./modules.ts";
import { type Exports, forCards, forLibrary } from "./packages.ts";
import type { Ask, Library, Result, Supply, Task, Tell } from "./protocol.ts";

// These functions are saved before card code runs, because card code could replace them.
const { parse, stringify } = JSON;
const now = performance.now.bind(performance);

/**
 * Returns a function that waits until all pending work has run, such as callbacks that an earlier
 * card has left behind.
 */
function ticker(): () => Promise<unknown> {
  const { port1, port2 } = new MessageChannel();
  return () =>
    new Promise((resolve) => {
      port1.onmessage = resolve;
      port2.postMessage(null);
    });
}

/** Loads the card library, and freezes it together with everything else that card modules share. */
async function loadLibrary(loader: Loader, { sources }: Library): Promise<void> {
  loader.supply(sources);
  const shared: Exports[] = [...Object.values(forCards)];
  for (const url of Object.keys(sources)) shared.push((await loader.load(url)).namespace);
  freezeShared(...shared.flatMap((exports) => Object.values(exports)));
}

addEventListener("message", async (event: MessageEvent) => {
  const port = event.ports[0];
  const library: Library = event.data;
  const tell = port.postMessage.bind(port) as (message: Tell) => void;
  const tick = ticker();
  let task: Task | null = null;
  let cards: Cards | null = null;
  let supply: ((supply: Supply) => void) | null = null;
  /**
   * The answer to the latest `needs`. The sandbox waits for this answer before it sends another
   * `needs`, because an answer doesn't say to which `needs` it belongs.
   */
  let answered: Promise<unknown> = Promise.resolve();

  function needs(documents: string[], modules: string[], dynamic = false): Promise<Supply> {
    const answer = answered.then(() => {
      tell({ tell: "needs", documents, modules, dynamic });
      return new Promise<Supply>((resolve) => supply = resolve);
    });
    answered = answer;
    return answer;
  }

  const loader = new Loader({
    origin: library.origin,
    libraryRealm: library.realm,
    libraryModule: library.module,
    packagesFor: { library: forLibrary, cards: forCards },
    fetch: async (urls, dynamic) => (await needs([], urls, dynamic)).sources,
  });
  let base: Base;

  /** The error document of a failed request as JSON; undefined if it can't be serialized. */
  function problem(error: unknown, ask: Ask): string | undefined {
    const document = errorDocument(error, "The card can't be rendered");
    const card = ask.ask === "card" && task?.type === "cards"
      ? task.cards[ask.index].url
      : undefined;
    try {
      return stringify({ error: { ...document, card } });
    } catch {
      return undefined;
    }
  }

  async function answer(ask: Ask): Promise<Result | undefined> {
    const loaded = { loader, base };
    switch (ask.ask) {
      case "prepare":
        task = parse(ask.task) as Task;
        if (task.type === "cards") {
          cards = new Cards(task, loaded, ask.unavailable, tell, (urls) => needs(urls, []));
        }
        return;
      case "card":
        return await cards!.render(ask.index);
      case "definitions":
        if (task?.type === "definitions") {
          return { definitions: await define(task, loaded, tell) };
        }
    }
  }

  async function perform(ask: Ask, before: Promise<void>): Promise<void> {
    await before;
    await tick();
    tell({ tell: "started" });
    const from = now();
    let json: string | undefined;
    try {
      json = stringify(await answer(ask));
    } catch (error) {
      json = problem(error, ask);
    }
    tell({ tell: "result", ms: now() - from, json });
  }

  // The host requests several cards before it gets the first result. The sandbox renders them one
  // after another.
  let last = Promise.resolve();
  port.onmessage = ({ data: ask }: MessageEvent<Ask>) => {
    if (ask.ask === "supply") supply?.(parse(ask.supply));
    else last = perform(ask, last);
  };
  lockDown(port);
  try {
    await loadLibrary(loader, library);
    base = (await loader.load(library.module)).namespace as Base;
    tell({ tell: "result", ms: 0 });
  } catch (error) {
    const { message } = errorDocument(error, "The card library can't be loaded");
    tell({ tell: "failed", message });
  }
}, { once: true });
