/**
 * The messages between the reindex and the prerenderer, and between the host and its sandbox.
 *
 * The reindex writes a `Request`, an `Order` and a `Task` to the host's stdin, one line each, and
 * keeps stdin open. The host passes the `Task` to the sandbox unchanged. The host answers with
 * lines `\n<nonce><JSON of a Response>\n`. After a `card` or `definitions` response, the host also
 * writes the line `\n<nonce><JSON of a Result>\n`. The host passes on a `Result` of the sandbox
 * unchanged. The reindex answers a `needs` response with one line, a `Supply`. After `done` the
 * reindex can use the host again. If the reindex writes a line with a `Rest`, the host starts a new
 * sandbox for another `Order` and `Task`. The reindex ignores text on stdout that doesn't follow
 * the nonce, because card code doesn't know the nonce.
 *
 * The host and its sandbox get modules as texts with public URLs. They read no realm, know no
 * replica's address, and hold no pin.
 */
import type {
  CardDocument,
  CodeRef,
  Definition,
  Format,
  RealmInfo,
  Reference,
  Warning,
} from "@realm/base";

/**
 * The first line on stdin. The host reads this line, starts a sandbox, and then waits for an
 * `Order`.
 */
export interface Request {
  nonce: string;
  /** The time limit for each card with its imports, and for the definitions of one module. */
  timeLimitMs: number;
  library: Library;
}

/** The card library. Every sandbox loads and freezes this library before its task. */
export interface Library {
  /** The public origin. Specifiers that begin with `/` are relative to the public origin. */
  origin: string;
  /** The URL of the card library's realm, and the URL of the module that is `@realm/base`. */
  realm: string;
  module: string;
  sources: Sources;
}

/** The result of importing a URL: a module's JavaScript, other data, another URL, or an error. */
export type Source =
  | { code: string }
  | { data: string }
  | { redirect: string }
  | { error: ErrorDocument };

/** Sources, keyed by public URL. */
export type Sources = Record<string, Source>;

/** The second line on stdin. */
export interface Order {
  /**
   * The public URLs of the cards to render, in the order of the task. Absent if the task is for
   * definitions.
   */
  cards?: string[];
  /** Modules that hung in an earlier host, from its `stopped` response. */
  unavailable?: Record<string, ErrorDocument>;
}

/**
 * A line on stdin that requests a new sandbox after the host's `done`. When the new sandbox is
 * ready, the host answers `ready`.
 */
export type Rest = Record<string, never>;

/** The third line on stdin, for the sandbox. */
export type Task = CardsTask | DefinitionsTask;

/** Card documents, keyed by public URL. A document is null if there is no card. */
export type Documents = Record<string, CardDocument | null>;

/** The answer to `needs`. The answer may contain more than the host requested. */
export interface Supply {
  documents: Documents;
  sources: Sources;
}

export interface CardsTask {
  type: "cards";
  realm: RealmInfo;
  cards: CardToRender[];
  /**
   * The documents that these cards may show. The sandbox requests other documents when a render
   * needs them.
   */
  linked?: Documents;
  /**
   * For each card's module, the public URLs of everything that the module imports, dependencies
   * first.
   */
  imports?: Record<string, string[]>;
  /**
   * The addresses of realms that are published at a URL other than their own, keyed by the realms'
   * own URLs.
   */
  addresses?: Record<string, string>;
  /**
   * The modules that these cards will import. The sandbox requests other modules when card code
   * imports them.
   */
  sources?: Sources;
}

export interface CardToRender {
  /** Public URL without `.json`. */
  url: string;
  doc: CardDocument;
}

export interface DefinitionsTask {
  type: "definitions";
  /** Public canonical URL. */
  module: string;
  /** Public URLs of everything that `module` imports, dependencies first. */
  modules: string[];
  sources?: Sources;
}

export type Response =
  /** The next line is the card's `Result`. */
  | { type: "card"; url: string; ms: number }
  /** The next line is the `Result` of the definitions. */
  | { type: "definitions" }
  /**
   * The documents and modules that the sandbox needs to continue. `dynamic` is true if card code
   * imports the modules dynamically and could continue without them.
   */
  | { type: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  | { type: "error"; error: ErrorDocument }
  /** The last line about a task, unless a card hung or ended its sandbox. */
  | { type: "done" }
  | { type: "ready" }
  /**
   * The last line if a card hung or ended its sandbox. If this was the card's own fault, the host
   * has already sent the card's error. The remaining cards need a new process. The `Order` for the
   * new process must contain the modules in `unavailable`.
   */
  | { type: "stopped"; unavailable: Record<string, ErrorDocument> };

/** The result for a card or a module. */
export type Result =
  | RenderedCard
  | { definitions: Record<string, Definition> }
  | { error: ErrorDocument };

export interface RenderedCard {
  html: Record<Format, string>;
  search: Record<string, unknown> & {
    _type: CodeRef;
    _types: string[];
    _title: string;
  };
  /** URLs of the linked cards that the HTML was made from, whether or not they were found. */
  links: string[];
  /** Faults that did not prevent the rendering. */
  warnings: Warning[];
  /** The files that the card names. The prerenderer doesn't know whether these files exist. */
  references: Reference[];
}

/** The reason why something can't be rendered, for the card's author. */
export interface ErrorDocument {
  /**
   * 503 if the reindex should try again in another sandbox. Any other status is the card's own
   * fault.
   */
  status: number;
  title: string;
  message: string;
  /** The messages of the error's cause, of that error's cause, and so on. */
  causes: string[];
  /** Public URL of the card that the error belongs to. */
  card?: string;
  /** The field that can't be read, as a path inside the card's document: `addresses.0.city`. */
  field?: string;
  /** The module that the error is about, if any. */
  module?: string;
  /** The line of that module's source, counted from 1. */
  line?: number;
  /**
   * Errors of the modules that a module imports. If one of these errors caused another, the cause
   * comes first.
   */
  dependencies?: ErrorDocument[];
}

/** The host's requests to its sandbox. `task` and `supply` are lines from stdin. */
export type Ask =
  | { ask: "prepare"; task: string; unavailable: Record<string, ErrorDocument> }
  | { ask: "rest" }
  | { ask: "card"; index: number }
  | { ask: "definitions" }
  /**
   * Answers `needs`. The sandbox handles this request at once; other requests wait for their turn.
   */
  | { ask: "supply"; supply: string };

/**
 * The sandbox's messages to its host. The sandbox sends one `result` after it has started, and one
 * `result` for each request except `supply`.
 */
export type Tell =
  | { tell: "started" }
  /** Sent in place of the first `result` if the sandbox could not start. */
  | { tell: "failed"; message: string }
  | { tell: "importing"; module: string; own: boolean }
  | { tell: "imported" }
  | { tell: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  /** `json` is a `Result`; undefined for requests that have no `Result`. */
  | { tell: "result"; ms: number; json?: string };
