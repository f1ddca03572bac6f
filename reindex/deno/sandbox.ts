/**
 * Controls a sandbox from the host, the main program of a prerenderer (`host.ts`). The sandbox is a
 * Worker that runs card code (`worker.ts`).
 *
 * The Worker handles one request at a time, under a time limit. Deno's `terminate()` doesn't stop a
 * Worker in an endless loop. So the host ends the whole process if a card hangs.
 *
 * With `PERMISSIONS`, Deno denies the Worker all access to files and the network. In addition,
 * `lockdown.ts` removes the functions for files and the network from the Worker.
 */
import type { Ask, Library, Tell } from "./protocol.ts";

/** How long a Worker may take to start and load the card library, and later to prepare a task. */
export const START_LIMIT_MS = 15_000;

/** A Worker that takes longer than this to answer a `rest` request counts as busy. */
const QUIET_LIMIT_MS = 1_000;

/** How the host's wait for the Worker ended. */
export type Outcome =
  | { ended: "answered"; json?: string; ms: number }
  | { ended: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  /**
   * `started` is false if the Worker had not yet begun to handle the request, for example because
   * work of an earlier card was still running. `importing` is the module that the Worker was
   * importing.
   */
  | { ended: "timed out"; started: boolean; importing: { module: string; own: boolean } | null }
  | { ended: "died"; message: string };

/** Card code needs no permissions, because the host supplies all modules that it imports. */
export const PERMISSIONS: Deno.PermissionOptionsObject = {
  import: false,
  read: false,
  write: false,
  net: false,
  env: false,
  run: false,
  ffi: false,
  sys: false,
};

export class Sandbox {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  /** Outcomes that arrived before the host waited for them. */
  readonly #heard: Outcome[] = [];
  #settle: ((outcome: Outcome) => void) | null = null;
  #started = false;
  #importing: { module: string; own: boolean } | null = null;

  private constructor(library: Library) {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      type: "module",
      deno: { permissions: PERMISSIONS },
    });
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end({ ended: "died", message: event.message });
    };
    this.#worker = worker;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = (event: MessageEvent<Tell>) => this.#hear(event.data);
    worker.postMessage(library, [port2]);
  }

  /** Starts a Worker that loads the card library. */
  static async start(library: Library): Promise<Sandbox> {
    const sandbox = new Sandbox(library);
    const outcome = await sandbox.outcome(START_LIMIT_MS);
    if (outcome.ended === "answered") return sandbox;
    throw new Error(outcome.ended === "died" ? outcome.message : "The sandbox didn't start");
  }

  /**
   * Ends the Worker if it is idle, and returns true. Otherwise returns false, and the Worker runs
   * until the process ends.
   */
  async end(): Promise<boolean> {
    this.ask({ ask: "rest" });
    const { ended } = await this.outcome(QUIET_LIMIT_MS);
    if (ended === "answered") this.#worker.terminate();
    return ended === "answered";
  }

  /** Sends a request to the Worker. */
  ask(ask: Ask): void {
    this.#port.postMessage(ask);
  }

  /**
   * Waits for the Worker's next outcome, for at most `limitMs`. The promise never rejects: if the
   * time passes or the Worker fails, that is an outcome too.
   */
  outcome(limitMs: number): Promise<Outcome> {
    const heard = this.#heard.shift();
    if (heard) return Promise.resolve(heard);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#end({ ended: "timed out", started: this.#started, importing: this.#importing });
      }, limitMs);
      this.#settle = (outcome) => {
        clearTimeout(timer);
        this.#settle = null;
        resolve(outcome);
      };
    });
  }

  #end(outcome: Outcome): void {
    if (this.#settle) this.#settle(outcome);
    else this.#heard.push(outcome);
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
      case "needs":
        this.#end({
          ended: "needs",
          documents: message.documents,
          modules: message.modules,
          dynamic: message.dynamic,
        });
        break;
      case "failed":
        this.#end({ ended: "died", message: message.message });
        break;
      case "result":
        this.#started = false;
        this.#importing = null;
        this.#end({ ended: "answered", json: message.json, ms: message.ms });
    }
  }
}
