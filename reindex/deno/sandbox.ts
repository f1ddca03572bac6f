/**
 * One Worker that runs card code, as its host sees it: asked one thing at a time, under a time limit.
 * There is no way to stop one: Deno's `terminate()` leaves an endless loop running, and the connections
 * of the process with it. What hangs a Worker therefore ends the process.
 *
 * The permissions given here are the wall. What `worker.ts` removes from the global scope is only the
 * second line of defence.
 */
import type { Ask, Result, Tell } from "./protocol.ts";

/** How long a Worker may take to start and to load `@realm/base`. */
export const START_LIMIT_MS = 15_000;

export type Outcome =
  | { ended: "answered"; result: Result }
  | { ended: "timed out"; started: boolean; importing: { module: string; own: boolean } | null }
  | { ended: "died"; message: string };

/** All that card code may do: import modules from one replica. */
export function permissions(replica: string): Deno.PermissionOptionsObject {
  return {
    import: [replica],
    read: false,
    write: false,
    net: false,
    env: false,
    run: false,
    ffi: false,
    sys: false,
  };
}

export class Sandbox {
  readonly #port: MessagePort;
  #settle: (outcome: Outcome) => void = () => {};
  #started = false;
  #importing: { module: string; own: boolean } | null = null;

  private constructor(replica: string) {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      type: "module",
      deno: { permissions: permissions(replica) },
    });
    worker.onerror = (event) => {
      event.preventDefault();
      this.#settle({ ended: "died", message: event.message });
    };
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = (event: MessageEvent<Tell>) => this.#hear(event.data);
    worker.postMessage(null, [port2]);
  }

  /** A Worker that has loaded the card library. */
  static async start(replica: string): Promise<Sandbox> {
    const sandbox = new Sandbox(replica);
    const outcome = await sandbox.#wait(START_LIMIT_MS);
    if (outcome.ended === "answered" && !("error" in outcome.result)) return sandbox;
    throw new Error(
      outcome.ended === "answered" && "error" in outcome.result
        ? outcome.result.error.message
        : "The sandbox didn't start",
    );
  }

  /** Never rejects: what goes wrong with card code is an outcome. */
  ask(ask: Ask, limitMs: number): Promise<Outcome> {
    this.#started = false;
    this.#importing = null;
    const outcome = this.#wait(limitMs);
    this.#port.postMessage(ask);
    return outcome;
  }

  #wait(limitMs: number): Promise<Outcome> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#settle({
          ended: "timed out",
          started: this.#started,
          importing: this.#importing,
        });
      }, limitMs);
      this.#settle = (outcome) => {
        clearTimeout(timer);
        this.#settle = () => {};
        resolve(outcome);
      };
    });
  }

  #hear(message: Tell): void {
    switch (message.tell) {
      case "started":
        this.#started = true;
        break;
      case "importing":
        this.#importing = { module: message.module, own: message.own };
        break;
      case "imported":
        this.#importing = null;
        break;
      case "result":
        this.#settle({ ended: "answered", result: message.result });
    }
  }
}
