/**
 * The messages between the reindex and the prerenderer, and those between the host and its sandbox.
 *
 * The reindex writes three lines to the host's stdin, a `Request`, an `Order`, and the `Task` that goes on
 * to the sandbox as it is, and keeps stdin open; the host answers with lines `\n<nonce><JSON of a Response>\n`.
 * A `card` or `definitions` response is followed by another such line, the JSON of a `Result` as the
 * sandbox spelt it. A `needs` response is answered by one line of `Documents`. After `done` the host can
 * be kept: a line with a `Rest` makes it ready for another `Order` with its task, in a new sandbox.
 * Anything else on stdout was written by card code, which never learns the nonce, and must be ignored.
 *
 * The import map that the reindex makes leads every spelling of a pinned realm to `/_at/<token>/`, and
 * the rest of the replica nowhere: permissions are by host, so only the map keeps out what isn't pinned.
 */
import type { CardDocument, CodeRef, Definition, Format, RealmInfo } from "@realm/base";

/** The first line that the host reads: it starts its sandbox and waits for what is to be done. */
export interface Request {
  nonce: string;
  /** Host and port of the replica: the only place that card code can be imported from. */
  replica: string;
  /** For each card with its imports, and for the definitions of one module. */
  timeLimitMs: number;
  /** Pinned URL prefixes (`http://<replica>/_at/<token>/`) and the public ones that they stand for. */
  urls?: Record<string, string>;
}

/** The second line. */
export interface Order {
  /** The cards of the task, by public URL, in its order; none if it is about definitions. */
  cards?: string[];
  /** Modules that hung an earlier host, as its `stopped` told. */
  unavailable?: Record<string, ErrorDocument>;
}

/** What a host that is kept loads beforehand; it answers `ready`. */
export interface Rest {
  /** Public URLs of modules. */
  modules: string[];
}

/** The third line, for the sandbox. */
export type Task = CardsTask | DefinitionsTask;

/** What `needs` is answered with: null where there is no card. There may be more than was asked for. */
export type Documents = Record<string, CardDocument | null>;

export interface CardsTask {
  type: "cards";
  realm: RealmInfo;
  cards: CardToRender[];
  /** Documents of cards that these may show. Others are asked for when a render needs them. */
  linked?: Documents;
  /** Public URLs of everything that a card's module imports, dependencies first, by its own URL. */
  imports?: Record<string, string[]>;
  /** Where the pages of other realms are, of those that are shown at another URL than their own. */
  addresses?: Record<string, string>;
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
  /** Public URLs of everything that it imports, dependencies first. */
  modules: string[];
}

export type Response =
  /** Followed by its `Result`. */
  | { type: "card"; url: string; ms: number }
  /** Followed by its `Result`. */
  | { type: "definitions" }
  /** The cards whose documents a render can't go on without. */
  | { type: "needs"; urls: string[] }
  | { type: "error"; error: ErrorDocument }
  /**
   * The last line, unless a card hung: then that card has its error, and the cards without an answer
   * are to be asked for again in a new process, with `unavailable` in the request.
   */
  | { type: "done" }
  | { type: "ready" }
  | { type: "stopped"; unavailable: Record<string, ErrorDocument> };

/** What came of a card or of a module. */
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
}

/** Why something can't be rendered, for the author of the card to read. */
export interface ErrorDocument {
  /** 503 if the replica couldn't be read: worth another try. Everything else is the card's own fault. */
  status: number;
  title: string;
  message: string;
  /** The messages of the chain of causes. */
  causes: string[];
  /** Public URL of the card that the error belongs to. */
  card?: string;
  /** The field that can't be read, as a path inside the card's document: `addresses.0.city`. */
  field?: string;
  /** The module that the error is about, if it is about one. */
  module?: string;
  /** Errors of the modules that a module imports, those first that others failed for. */
  dependencies?: ErrorDocument[];
}

/** What the host asks its sandbox; texts are the lines that it has read. */
export type Ask =
  | { ask: "prepare"; task: string; unavailable: Record<string, ErrorDocument> }
  | { ask: "load"; modules: string[] }
  | { ask: "card"; index: number }
  | { ask: "definitions" }
  /** The answer to `needs`; the only thing that is told while something else is asked. */
  | { ask: "documents"; documents: string };

/** What the sandbox tells its host. Every ask but `documents` ends in one `result`, and so does starting. */
export type Tell =
  | { tell: "started" }
  | { tell: "importing"; module: string; own: boolean }
  | { tell: "imported" }
  | { tell: "needs"; urls: string[] }
  /** `json` is a `Result`; what is only done has none. */
  | { tell: "result"; ms: number; json?: string };
