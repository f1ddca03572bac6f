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
import type { Ask, Result, Tell } from "./protocol.ts";

addEventListener("message", (event: MessageEvent) => {
  const port = event.ports[0];
  const tell = port.postMessage.bind(port) as (message: Tell) => void;
  let cards: Cards | null = null;

  async function answer(ask: Ask): Promise<Result> {
    switch (ask.ask) {
      case "prepare":
        cards = new Cards(ask, ask.unavailable, tell);
        return { prepared: true };
      case "card":
        return { card: await cards!.render(ask.index) };
      case "definitions":
        return { definitions: await define(ask, tell) };
    }
  }

  port.onmessage = async (event: MessageEvent<Ask>) => {
    tell({ tell: "started" });
    let result: Result;
    try {
      result = await answer(event.data);
    } catch (error) {
      result = { error: errorDocument(error, "The card can't be rendered") };
    }
    tell({ tell: "result", result });
  };
  lockDown(port);
  tell({ tell: "result", result: { prepared: true } });
}, { once: true });
