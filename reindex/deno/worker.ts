/**
 * The sandbox: loads card modules, renders cards, builds definitions.
 *
 * Everything here shares its global scope with card code. It holds no secret, and its host believes
 * nothing that it says about anything but the card that it was asked for.
 */
import { Cards } from "./cards.ts";
import { define } from "./definitions.ts";
import { errorDocument } from "./errors.ts";
import { lockDown } from "./lockdown.ts";
import type { Ask, Documents, Result, Task, Tell } from "./protocol.ts";

// Taken before any card code could put something else in their place.
const { parse, stringify } = JSON;
const now = performance.now.bind(performance);

/** Lets everything else that is due happen first: work that a card has left behind shows here. */
function ticker(): () => Promise<unknown> {
  const { port1, port2 } = new MessageChannel();
  return () =>
    new Promise((resolve) => {
      port1.onmessage = resolve;
      port2.postMessage(null);
    });
}

addEventListener("message", (event: MessageEvent) => {
  const port = event.ports[0];
  const tell = port.postMessage.bind(port) as (message: Tell) => void;
  const tick = ticker();
  let task: Task | null = null;
  let cards: Cards | null = null;
  let supply: ((documents: Documents) => void) | null = null;

  function needs(urls: string[]): Promise<Documents> {
    tell({ tell: "needs", urls });
    return new Promise((resolve) => supply = resolve);
  }

  /** What went wrong with the card that is asked for; nothing if even that can't be said. */
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
    switch (ask.ask) {
      case "prepare":
        task = parse(ask.task) as Task;
        if (task.type === "cards") cards = new Cards(task, ask.unavailable, tell, needs);
        return;
      case "load":
        // What can't be loaded has its error when a card needs it.
        for (const module of ask.modules) await import(module).catch(() => {});
        return;
      case "card":
        return await cards!.render(ask.index);
      case "definitions":
        if (task?.type === "definitions") return { definitions: await define(task, tell) };
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

  // Asked for several cards ahead, it renders one after another.
  let last = Promise.resolve();
  port.onmessage = ({ data: ask }: MessageEvent<Ask>) => {
    if (ask.ask === "documents") supply?.(parse(ask.documents));
    else last = perform(ask, last);
  };
  lockDown(port);
  tell({ tell: "result", ms: 0 });
}, { once: true });
