/** Errors of card code as documents for its author: a title, a message, no stack traces. */
import { removed } from "./lockdown.ts";
import type { ErrorDocument } from "./protocol.ts";

const MAX_MESSAGE = 2_000;
const MAX_CAUSES = 5;

/** A failure that is already described for the author of a card. */
export class CardProblem extends Error {
  constructor(readonly document: ErrorDocument) {
    super(document.message);
  }

  /** A problem that the prerenderer itself finds. */
  static of(status: number, title: string, message: string): CardProblem {
    return new CardProblem({ status, title, message, causes: [] });
  }
}

/** What loading a module failed with, told apart by what Deno says: it has no error codes for these. */
const IMPORT_FAILURES: [RegExp, number, string][] = [
  [
    /^Import '[^']+' failed(: (5\d\d|429)\b|\.\s+0: error sending request)/,
    503,
    "The replica couldn't be read",
  ],
  [/failed: 406/, 406, "The module can't be transpiled"],
  [/^Module not found|failed: 404/, 404, "Module not found"],
  [/not in import map|Could not find a matching package/, 404, "Unknown package"],
  [/^Node's own modules/, 403, "Import refused"],
  [/^Requires (import|read) access|^Remote modules are not allowed/, 403, "Import refused"],
  [/does not provide an export/, 422, "Missing export"],
];

export function importError(error: unknown, module: string): ErrorDocument {
  const document = errorDocument(error, "The module failed while it was loaded");
  const known = error instanceof TypeError || error instanceof SyntaxError
    ? IMPORT_FAILURES.find(([pattern]) => pattern.test(document.message))
    : undefined;
  if (known) [, document.status, document.title] = known;
  else if (error instanceof SyntaxError || /^SyntaxError: /.test(document.message)) {
    document.status = 406;
    document.title = "Syntax error";
  }
  return { ...document, module };
}

export function timeLimitError(limitMs: number, module: string | null): ErrorDocument {
  const message = module === null
    ? `Rendering took longer than ${limitMs} ms`
    : `The module ${module} took longer than ${limitMs} ms to load`;
  const document = { status: 504, title: "Time limit exceeded", message, causes: [] };
  return module === null ? document : { ...document, module };
}

/** Card code can throw anything, also things that throw when they are looked at. */
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
    return { ...document, ...aboutField(error) };
  } catch {
    return { status: 500, title, message: "Something that can't be shown was thrown", causes: [] };
  }
}

/** What a `CardError` of the library adds; told by its shape, since the host must not load the library. */
function aboutField(error: unknown): Partial<ErrorDocument> {
  const { status, field } = error as { status?: unknown; field?: unknown };
  const known = error instanceof Error && (status === 422 || status === 500);
  return known && typeof field === "string" ? { status, field } : {};
}

function messageOf(error: unknown): string {
  const text = error instanceof Error ? `${error.message || error.name}` : String(error);
  return explained(clean(text).slice(0, MAX_MESSAGE)) || "No message";
}

/** Says why a global is missing that Deno or a browser would have, or why Node's own modules are. */
function explained(message: string): string {
  if (NODE.test(message)) return `Node's own modules are not there: ${CLOSED}`;
  const [, name] =
    /^(?:ReferenceError: )*(\w+) is not defined(?=$|\n\s+at \S+ \(ext:)/.exec(message) ??
      [];
  if (name === undefined || !removed.has(name)) return message;
  return `${name} is not defined: ${CLOSED}`;
}

const CLOSED = "card code has no files, network, environment, processes or timers";
/** Where the import map leads them. */
const NODE = /^Requires import access to "node\.invalid:/;

/** Without colours, and without lines and paths that only say where the prerenderer itself stands. */
function clean(message: string): string {
  return message
    // deno-lint-ignore no-control-regex -- the escape character starts a colour
    .replaceAll(/\x1b\[[0-9;]*m/g, "")
    .replaceAll(/\n\s+at (?:file|ext|node):[^\n]*/g, "")
    // Which file is right; which line is that of the transpiled code.
    .replaceAll(/\s*\n\s+at (https?:\S+?)(?::\d+)*(?=\s|$)/g, " (in $1)")
    .replaceAll(/file:\/\/\S+/g, "(a local file)")
    .replaceAll(/, run again with the --allow-\S+ flag/g, "")
    .trim();
}
