/**
 * The prerenderer's host: reads one request, has a sandbox do it, writes the answers.
 *
 * It holds what card code must never have: the nonce, stdin, and the clock that ends a card. It ends
 * when stdin does, so that it never outlives the process that asked, and when a card hangs.
 */
import { errorDocument, timeLimitError } from "./errors.ts";
import type { CardResponse, CardsTask, DefinitionsTask, Request, Response } from "./protocol.ts";
import type { ErrorDocument } from "./protocol.ts";
import { PublicURLs } from "./public_urls.ts";
import { type Outcome, Sandbox, START_LIMIT_MS } from "./sandbox.ts";

type Emit = (response: Response) => void;

/** The first line of stdin. From then on the end of stdin ends the process, whatever it is doing. */
async function readRequest(): Promise<Request> {
  const reader = Deno.stdin.readable.getReader();
  const decoder = new TextDecoder();
  const parts: string[] = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) Deno.exit(2);
    const end = value.indexOf(10);
    parts.push(decoder.decode(end < 0 ? value : value.subarray(0, end), { stream: end < 0 }));
    if (end >= 0) break;
  }
  (async () => {
    while (!(await reader.read()).done);
    Deno.exit(0);
  })();
  return JSON.parse(parts.join(""));
}

function emitter(request: Request): Emit {
  const encoder = new TextEncoder();
  const urls = new PublicURLs(request.urls ?? {});
  return (response) => {
    const json = urls.restore(JSON.stringify(response));
    let bytes = encoder.encode(`\n${request.nonce}${json}\n`);
    while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
  };
}

/**
 * Renders the cards one after another, until one hangs: Deno can't end a Worker that is in an endless
 * loop, only its process can. The modules that hung are returned then, because every card that needs
 * them would hang as well; null means that all is done.
 */
async function renderCards(
  task: CardsTask,
  request: Request,
  emit: Emit,
): Promise<Record<string, ErrorDocument> | null> {
  const limitMs = request.timeLimitMs;
  const unavailable = { ...request.unavailable };
  const sandbox = await Sandbox.start(request.replica);
  await sandbox.ask({ ask: "prepare", unavailable, ...task }, START_LIMIT_MS);
  for (const [index, { url }] of task.cards.entries()) {
    const from = performance.now();
    const outcome = await sandbox.ask({ ask: "card", index }, limitMs);
    const ms = Math.round((performance.now() - from) * 1000) / 1000;
    if (outcome.ended === "answered") {
      emit(cardResponse(url, ms, outcome, limitMs));
      continue;
    }
    const hung = outcome.ended === "timed out" ? outcome.importing : null;
    if (hung) unavailable[hung.module] = timeLimitError(limitMs, hung.module);
    if (isOwnFault(outcome, index === 0)) emit(cardResponse(url, ms, outcome, limitMs));
    return unavailable;
  }
  return null;
}

/** Not so if only a linked card's module hung, or if the Worker never came back from an earlier card. */
function isOwnFault(outcome: Outcome, isFirst: boolean): boolean {
  if (outcome.ended !== "timed out") return true;
  return outcome.importing ? outcome.importing.own : outcome.started || isFirst;
}

function cardResponse(url: string, ms: number, outcome: Outcome, limitMs: number): CardResponse {
  if (outcome.ended === "answered" && "card" in outcome.result) {
    const { html, search, links } = outcome.result.card;
    return { type: "card", url, html, search, links, ms };
  }
  return { type: "card", url, error: { ...failure(outcome, limitMs), card: url }, ms };
}

async function define(task: DefinitionsTask, request: Request, emit: Emit): Promise<null> {
  const sandbox = await Sandbox.start(request.replica);
  const outcome = await sandbox.ask({ ask: "definitions", ...task }, request.timeLimitMs);
  if (outcome.ended === "answered" && "definitions" in outcome.result) {
    emit({ type: "definitions", definitions: outcome.result.definitions });
  } else {
    emit({ type: "error", error: failure(outcome, request.timeLimitMs) });
  }
  return null;
}

function failure(outcome: Outcome, limitMs: number): ErrorDocument {
  switch (outcome.ended) {
    case "answered":
      return "error" in outcome.result
        ? outcome.result.error
        : errorDocument(new Error("The sandbox gave an answer to another question"), "No answer");
    case "timed out":
      return timeLimitError(limitMs, outcome.importing?.module ?? null);
    case "died":
      return errorDocument(new Error(outcome.message), "The card ended its sandbox");
  }
}

async function perform(request: Request, emit: Emit): Promise<Response> {
  const { task } = request;
  try {
    const unavailable = task.type === "cards"
      ? await renderCards(task, request, emit)
      : await define(task, request, emit);
    if (unavailable) return { type: "stopped", unavailable };
  } catch (error) {
    const document = errorDocument(error, "The prerenderer couldn't start");
    emit({ type: "error", error: { ...document, status: 503 } });
  }
  return { type: "done" };
}

if (import.meta.main) {
  const request = await readRequest();
  const emit = emitter(request);
  emit(await perform(request, emit));
  // Whatever card code is still doing ends with the process.
  Deno.exit(0);
}
