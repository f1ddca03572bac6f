/**
 * Converts errors of card code to error documents, which the author of the code reads. An error
 * document has a title and a message, but no stack trace. The prerenderer, the process that runs
 * card code, also makes error documents for faults that it finds itself.
 */
import { removed } from "./lockdown.ts";
import { positionOf } from "./positions.ts";
import type { ErrorDocument } from "./protocol.ts";

const MAX_MESSAGE = 2_000;
const MAX_CAUSES = 5;

/** An error with a document for the card's author. */
export class CardProblem extends Error {
  constructor(readonly document: ErrorDocument) {
    super(document.message);
  }

  /** Creates the error for a fault that the prerenderer itself finds. */
  static of(status: number, title: string, message: string): CardProblem {
    return new CardProblem({ status, title, message, causes: [] });
  }
}

/** For each error that `problemOf` has made for card code, the document of the original error. */
const described = new WeakMap<Error, ErrorDocument>();

/**
 * Returns the error that a failed dynamic import throws in card code. Card code must not get the
 * prerenderer's own objects, so it gets a TypeError in place of a `CardProblem`.
 */
export function problemOf(error: unknown): unknown {
  if (!(error instanceof CardProblem)) return error;
  const shown = new TypeError(error.document.message);
  described.set(shown, error.document);
  return shown;
}

export function importError(error: unknown, module: string): ErrorDocument {
  const known = error instanceof CardProblem
    ? error.document
    : error instanceof Error
    ? described.get(error)
    : undefined;
  if (known) return { ...known, module: known.module ?? module };
  const document = errorDocument(error, "The module failed while it was loaded");
  if (/does not provide an export/.test(document.message)) {
    document.status = 422;
    document.title = "Missing export";
  } else if (error instanceof SyntaxError) {
    document.status = 406;
    document.title = "Syntax error";
  }
  return { module, ...document };
}

export function timeLimitError(limitMs: number, module: string | null): ErrorDocument {
  const message = module === null
    ? `Rendering took longer than ${limitMs} ms`
    : `The module ${module} took longer than ${limitMs} ms to load`;
  const document = { status: 504, title: "Time limit exceeded", message, causes: [] };
  return module === null ? document : { ...document, module };
}

/** Describes an error. Card code can throw anything, even an object without a readable message. */
export function errorDocument(error: unknown, title: string): ErrorDocument {
  try {
    if (error instanceof CardProblem) return error.document;
    const causes: string[] = [];
    let cause = error instanceof Error ? error.cause : undefined;
    while (cause !== undefined && cause !== null && causes.length < MAX_CAUSES) {
      causes.push(messageOf(cause));
      cause = cause instanceof Error ? cause.cause : undefined;
    }
    const document = { status: 500, title, message: messageOf(error), causes };
    return { ...document, ...placeOf(error), ...aboutField(error) };
  } catch {
    return { status: 500, title, message: "Something that can't be shown was thrown", causes: [] };
  }
}

/**
 * The position of an error in the author's code. If the error has a cause, and the cause's position
 * is known, returns the position of the cause.
 */
function placeOf(error: unknown): Partial<ErrorDocument> {
  // Status 422 means that the fault is in the card's document, not in the code that reads it.
  if (!(error instanceof Error) || (error as { status?: unknown }).status === 422) return {};
  try {
    const first = error.cause instanceof Error ? positionOf(error.cause) : undefined;
    return first ?? positionOf(error) ?? {};
  } catch {
    return {};
  }
}

/**
 * The status and the field of an error, if the error is a `CardError` of the card library. This
 * module also runs in the host, which can't load the card library. So a `CardError` is recognized
 * by its properties.
 */
function aboutField(error: unknown): Partial<ErrorDocument> {
  const { status, field } = error as { status?: unknown; field?: unknown };
  const known = error instanceof Error && (status === 422 || status === 500);
  return known && typeof field === "string" ? { status, field } : {};
}

function messageOf(error: unknown): string {
  const text = error instanceof Error ? `${error.message || error.name}` : String(error);
  return explained(clean(text).slice(0, MAX_MESSAGE)) || "No message";
}

/** Explains why a global of Deno or of browsers is missing. */
function explained(message: string): string {
  const [, name] = /^(?:ReferenceError: )*(\w+) is not defined$/.exec(message) ?? [];
  if (name === undefined || !removed.has(name)) return message;
  return `${name} is not defined: ${CLOSED}`;
}

const CLOSED = "card code has no files, network, environment, processes or timers";

/** Removes terminal colours, and replaces the URLs of local files. */
function clean(message: string): string {
  return message
    // deno-lint-ignore no-control-regex -- the escape character begins a colour code
    .replaceAll(/\x1b\[[0-9;]*m/g, "")
    .replaceAll(/file:\/\/\S+/g, "(a local file)")
    .trim();
}
