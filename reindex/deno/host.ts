/**
 * The host, the main program of a prerenderer process, which the reindex starts. The host reads a
 * request and its tasks from stdin, runs each task in a new sandbox, and writes the answers to
 * stdout. A sandbox is a Worker that runs card code.
 *
 * Each line that the host writes begins with the nonce, a secret that card code can't guess. The
 * host keeps the nonce, stdin and the time limit out of the sandbox, because card code must never
 * reach them. The host passes tasks and results on without parsing them. The process exits when a
 * card hangs. The process also exits when stdin is closed, so that it never outlives the process
 * that started it.
 */
import { errorDocument, timeLimitError } from "./errors.ts";
import type { ErrorDocument, Order, Request, Response } from "./protocol.ts";
import { type Outcome, Sandbox, START_LIMIT_MS } from "./sandbox.ts";

/** At this many `needs` messages of the sandbox for one result, the result becomes an error. */
const MAX_QUESTIONS = 200;
/** At this many documents and modules in these messages, the result becomes an error, too. */
const MAX_ASKED_FOR = 20_000;

/**
 * How many cards the host requests from the sandbox in advance, so that the sandbox can render the
 * next card while the host still writes a result.
 */
const AHEAD = 8;

type Emit = (response: Response, result?: string) => void;

/** The lines of stdin. The process exits at once when stdin is closed. */
class Lines {
  readonly #lines: string[] = [];
  #waiting: ((line: string) => void) | null = null;

  constructor() {
    this.#read();
  }

  next(): Promise<string> {
    const line = this.#lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    return new Promise((resolve) => this.#waiting = resolve);
  }

  async #read(): Promise<never> {
    const decoder = new TextDecoder();
    let parts: string[] = [];
    for await (const bytes of Deno.stdin.readable) {
      const [end, ...lines] = decoder.decode(bytes, { stream: true }).split("\n");
      parts.push(end);
      for (const line of lines) {
        this.#take(parts.join(""));
        parts = [line];
      }
    }
    Deno.exit(0);
  }

  #take(line: string): void {
    if (this.#waiting) {
      this.#waiting(line);
      this.#waiting = null;
    } else this.#lines.push(line);
  }
}

function emitter(request: Request): Emit {
  const encoder = new TextEncoder();
  const line = (json: string) => `\n${request.nonce}${json}\n`;
  return (response, result) => {
    const lines = line(JSON.stringify(response)) + (result === undefined ? "" : line(result));
    let bytes = encoder.encode(lines);
    while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
  };
}

/** Runs one task in a sandbox. */
class Run {
  constructor(
    readonly timeLimitMs: number,
    readonly sandbox: Sandbox,
    readonly lines: Lines,
    readonly emit: Emit,
  ) {}

  /**
   * Renders the cards one after another. Returns null when all cards are done.
   *
   * If a card hangs, the remaining cards need a new process, because Deno can't end a Worker in an
   * endless loop. A card that ends its sandbox is treated in the same way. In both cases, returns
   * the errors of all modules that have hung so far, keyed by module. The new process doesn't load
   * these modules again.
   */
  async renderCards(
    cards: string[],
    known: Record<string, ErrorDocument>,
  ): Promise<Record<string, ErrorDocument> | null> {
    const { timeLimitMs } = this;
    for (let index = 0; index < Math.min(AHEAD, cards.length); index++) this.#ask(index);
    for (const [index, url] of cards.entries()) {
      const outcome = await this.#outcome();
      const result = resultOf(outcome, timeLimitMs, url);
      if (outcome.ended === "answered") {
        if (index + AHEAD < cards.length) this.#ask(index + AHEAD);
        this.emit({ type: "card", url, ms: outcome.ms }, result);
        continue;
      }
      const unavailable = { ...known };
      const hung = outcome.ended === "timed out" ? outcome.importing : null;
      if (hung) unavailable[hung.module] = timeLimitError(timeLimitMs, hung.module);
      if (isOwnFault(outcome, index === 0)) {
        this.emit({ type: "card", url, ms: timeLimitMs }, result);
      }
      return unavailable;
    }
    return null;
  }

  async define(): Promise<null> {
    this.sandbox.ask({ ask: "definitions" });
    const result = resultOf(await this.#outcome(), this.timeLimitMs);
    this.emit({ type: "definitions" }, result);
    return null;
  }

  #ask(index: number): void {
    this.sandbox.ask({ ask: "card", index });
  }

  /**
   * The sandbox's next result. The time that the sandbox waits for documents and modules doesn't
   * count towards the time limit.
   */
  async #outcome(): Promise<Outcome> {
    let leftMs = this.timeLimitMs;
    let askedFor = 0;
    for (let questions = 0; questions < MAX_QUESTIONS && askedFor < MAX_ASKED_FOR; questions++) {
      const from = performance.now();
      const outcome = await this.sandbox.outcome(leftMs);
      if (outcome.ended !== "needs") return outcome;
      leftMs = Math.max(leftMs - (performance.now() - from), 1);
      const { documents, modules, dynamic } = outcome;
      askedFor += documents.length + modules.length;
      this.emit({ type: "needs", documents, modules, dynamic });
      this.sandbox.ask({ ask: "supply", supply: await this.lines.next() });
    }
    return { ended: "died", message: "It requests too many cards or modules" };
  }
}

/**
 * Whether the card itself caused the outcome. It did not if the module of a linked card hung, or if
 * an earlier card left work that hung.
 */
function isOwnFault(outcome: Outcome, isFirst: boolean): boolean {
  if (outcome.ended !== "timed out") return true;
  return outcome.importing ? outcome.importing.own : outcome.started || isFirst;
}

/** The sandbox's result as JSON, or an error that says why there is no result. */
function resultOf(outcome: Outcome, limitMs: number, card?: string): string {
  if (outcome.ended === "answered" && outcome.json !== undefined) return outcome.json;
  const error = outcome.ended === "timed out"
    ? timeLimitError(limitMs, outcome.importing?.module ?? null)
    : errorDocument(
      new Error(outcome.ended === "died" ? outcome.message : "The sandbox gave no answer"),
      outcome.ended === "died" ? "The sandbox stopped" : "No answer",
    );
  return JSON.stringify({ error: card === undefined ? error : { ...error, card } });
}

async function perform(
  request: Request,
  sandbox: Sandbox,
  lines: Lines,
  emit: Emit,
): Promise<Response> {
  const { unavailable = {}, cards }: Order = JSON.parse(await lines.next());
  sandbox.ask({ ask: "prepare", task: await lines.next(), unavailable });
  await sandbox.outcome(START_LIMIT_MS);
  const run = new Run(request.timeLimitMs, sandbox, lines, emit);
  const hung = await (cards ? run.renderCards(cards, unavailable) : run.define());
  return hung ? { type: "stopped", unavailable: hung } : { type: "done" };
}

/** Ends the sandbox of the last task, and starts a new sandbox. */
async function restarted(request: Request, last: Sandbox): Promise<Sandbox> {
  if (!await last.end()) throw new Error("The sandbox is still busy after its task");
  return await Sandbox.start(request.library);
}

async function serve(request: Request, lines: Lines, emit: Emit): Promise<void> {
  try {
    let sandbox = await Sandbox.start(request.library);
    for (;;) {
      const last = await perform(request, sandbox, lines, emit);
      emit(last);
      if (last.type !== "done") return;
      // The next line is a `Rest`, which requests a new sandbox.
      await lines.next();
      sandbox = await restarted(request, sandbox);
      emit({ type: "ready" });
    }
  } catch (error) {
    const document = errorDocument(error, "The prerenderer couldn't start");
    emit({ type: "error", error: { ...document, status: 503 } });
    emit({ type: "done" });
  }
}

if (import.meta.main) {
  const lines = new Lines();
  const request: Request = JSON.parse(await lines.next());
  await serve(request, lines, emitter(request));
  // Ends everything that card code is still doing.
  Deno.exit(0);
}
