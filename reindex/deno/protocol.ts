/**
 * The messages between the reindex and the prerenderer, and those between the host and its sandbox.
 *
 * The reindex writes three lines to the host's stdin, a `Request`, an `Order`, and the `Task` that goes on
 * to the sandbox as it is, and keeps stdin open; the host answers with lines `\n<nonce><JSON of a Response>\n`.
 * A `card` or `definitions` response is followed by another such line, the JSON of a `Result` as the
 * sandbox spelt it. A `needs` response is answered by one line, a `Supply`. After `done` the host can
 * be kept: a line with a `Rest` makes it ready for another `Order` with its task, in a new sandbox.
 * Anything else on stdout was written by card code, which never learns the nonce, and must be ignored.
 *
 * Modules are texts under their public URLs: neither the host nor its sandbox reads a realm, knows a
 * replica's address, or holds a pin.
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

/** The first line that the host reads: it starts its sandbox and waits for what is to be done. */
export interface Request {
  nonce: string;
  /** For each card with its imports, and for the definitions of one module. */
  timeLimitMs: number;
  library: Library;
}

/** The card library, which every sandbox has loaded and frozen before its task. */
export interface Library {
  /** The public origin, which a specifier that begins with `/` is relative to. */
  origin: string;
  /** The URL of the realm that it is in, and of the module that is `@realm/base`. */
  realm: string;
  module: string;
  sources: Sources;
}

/** What importing a URL gives: a module's JavaScript, other data, the way to another URL, an error. */
export type Source =
  | { code: string }
  | { data: string }
  | { redirect: string }
  | { error: ErrorDocument };

/** By public URL. */
export type Sources = Record<string, Source>;

/** The second line. */
export interface Order {
  /** The cards of the task, by public URL, in its order; none if it is about definitions. */
  cards?: string[];
  /** Modules that hung an earlier host, as its `stopped` told. */
  unavailable?: Record<string, ErrorDocument>;
}

/** Has a host that is done start a new sandbox; it answers `ready`. */
export type Rest = Record<string, never>;

/** The third line, for the sandbox. */
export type Task = CardsTask | DefinitionsTask;

/** Card documents by public URL; null where there is no card. */
export type Documents = Record<string, CardDocument | null>;

/** What `needs` is answered with. There may be more than was asked for. */
export interface Supply {
  documents: Documents;
  sources: Sources;
}

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
  /** Modules that these cards will import. Others are asked for when they are imported. */
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
  /** Public URLs of everything that it imports, dependencies first. */
  modules: string[];
  sources?: Sources;
}

export type Response =
  /** Followed by its `Result`. */
  | { type: "card"; url: string; ms: number }
  /** Followed by its `Result`. */
  | { type: "definitions" }
  /**
   * The documents of cards, and the modules, that the sandbox can't go on without; `dynamic` if card code
   * has asked for the modules and would go on without them.
   */
  | { type: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  | { type: "error"; error: ErrorDocument }
  /**
   * The last line, unless a card hung: then that card has its error, and the cards without an answer
   * are to be asked for again in a new process, with `unavailable` in the order.
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
  /** What the card is rendered in spite of. */
  warnings: Warning[];
  /** The files that the card names, of which the prerenderer doesn't know whether they are there. */
  references: Reference[];
}

/** Why something can't be rendered, for the author of the card to read. */
export interface ErrorDocument {
  /** 503 where another sandbox is to try. Everything else is the card's own fault. */
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
  /** The line of that module's source, from 1. */
  line?: number;
  /** Errors of the modules that a module imports, those first that others failed for. */
  dependencies?: ErrorDocument[];
}

/** What the host asks its sandbox; texts are the lines that it has read. */
export type Ask =
  | { ask: "prepare"; task: string; unavailable: Record<string, ErrorDocument> }
  | { ask: "rest" }
  | { ask: "card"; index: number }
  | { ask: "definitions" }
  /** The answer to `needs`; the only thing that is told while something else is asked. */
  | { ask: "supply"; supply: string };

/** What the sandbox tells its host. Every ask but `supply` ends in one `result`, and so does starting. */
export type Tell =
  | { tell: "started" }
  /** In place of the result of starting. */
  | { tell: "failed"; message: string }
  | { tell: "importing"; module: string; own: boolean }
  | { tell: "imported" }
  | { tell: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  /** `json` is a `Result`; what is only done has none. */
  | { tell: "result"; ms: number; json?: string };
