/**
 * The messages of the prerenderer, a Deno process that renders cards. Its main program is the host
 * (`host.ts`). The host runs card code in a sandbox, which is a Worker (`worker.ts`). The reindex,
 * the Python code in `reindex/prerender/`, starts the process and talks to the host.
 *
 * The reindex writes a `Request`, an `Order` and a `Task` to the host's stdin, one line each, and
 * keeps stdin open. The host passes the `Task` to the sandbox unchanged. The host answers with
 * lines `\n<nonce><JSON of a Response>\n`. After a `card` or `definitions` response, the host also
 * writes the line `\n<nonce><JSON of a Result>\n`. The host passes on a `Result` of the sandbox
 * unchanged. The reindex answers a `needs` response with one line, a `Supply`. After `done`, the
 * reindex may write a line with a `Rest`. The host then starts a new sandbox, and waits for another
 * `Order` and `Task`. The reindex ignores lines of stdout that don't begin with the nonce. Card
 * code doesn't know the nonce, so it can't forge an answer by writing to stdout.
 *
 * The reindex sends the text of every module that card code imports. So the host and the sandbox
 * never read the files of a realm, and get no token for reading them.
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
  /** The secret text with which each line of the host begins. */
  nonce: string;
  /**
   * The time limit for one card, including the loading of its modules. Also the time limit for the
   * definitions of one module.
   */
  timeLimitMs: number;
  library: Library;
}

/** The card library. Every sandbox loads and freezes this library before its task. */
export interface Library {
  /** The server's public origin. Import specifiers that begin with `/` are relative to it. */
  origin: string;
  /** The URL of the realm that contains the card library. */
  realm: string;
  /** The URL of the module that card code imports as `@realm/base`. */
  module: string;
  /** The sources of `module` and of everything that `module` imports. */
  sources: Sources;
}

/**
 * What an import of a URL leads to: a module's JavaScript, the text of a file that isn't code, a
 * redirect to another URL, or an error.
 */
export type Source =
  | { code: string }
  | { data: string }
  | { redirect: string }
  | { error: ErrorDocument };

/** Sources, keyed by public URL. */
export type Sources = Record<string, Source>;

/** The second line on stdin: what the host itself has to know about the `Task` that follows. */
export interface Order {
  /**
   * The public URLs of the cards to render, in the order of the task. Absent if the task is a
   * `DefinitionsTask`.
   */
  cards?: string[];
  /**
   * The errors of the modules that are known to hang, by public URL. The sandbox doesn't load these
   * modules, and reports their errors instead.
   */
  unavailable?: Record<string, ErrorDocument>;
}

/** An empty object. The reindex sends it after the host's `done`, to request a new sandbox. */
export type Rest = Record<string, never>;

/** The third line on stdin. The host passes it to the sandbox without parsing it. */
export type Task = CardsTask | DefinitionsTask;

/** Card documents, keyed by public URL. A document is null if there is no card. */
export type Documents = Record<string, CardDocument | null>;

/**
 * The reindex's answer to a `needs` response. The answer may also contain documents and sources
 * that the response doesn't list.
 */
export interface Supply {
  documents: Documents;
  sources: Sources;
}

/** A task to render cards of one realm. */
export interface CardsTask {
  type: "cards";
  realm: RealmInfo;
  cards: CardToRender[];
  /**
   * Documents of other cards, which the cards of the task may link to. When a render needs a
   * document that is missing here, the sandbox requests it.
   */
  linked?: Documents;
  /**
   * For each module that exports the type of a card, the public URLs of everything that the module
   * imports, dependencies first. The list may end with the module's own URL.
   */
  imports?: Record<string, string[]>;
  /**
   * The addresses at which visitors find realms, by the realm's URL. In pages, the URLs of a
   * realm's cards begin with the realm's address. A realm is listed if its address differs from its
   * URL. The realms inside a listed realm are listed too. Inner realms come first, because a card's
   * URL gets the address of the first listed realm that contains it.
   */
  addresses?: Record<string, string>;
  /**
   * The modules that these cards are known to import. The sandbox requests other modules when card
   * code imports them.
   */
  sources?: Sources;
}

export interface CardToRender {
  /** The card's public URL, without `.json`. */
  url: string;
  doc: CardDocument;
}

/** A task to build the definitions of a module. They describe the module's card types. */
export interface DefinitionsTask {
  type: "definitions";
  /** The module's public URL, with the extension of its file. */
  module: string;
  /** Public URLs of everything that `module` imports, dependencies first. */
  modules: string[];
  sources?: Sources;
}

export type Response =
  /** The next line is the card's `Result`. Rendering the card took `ms` milliseconds. */
  | { type: "card"; url: string; ms: number }
  /** The next line is the `Result` of the definitions. */
  | { type: "definitions" }
  /**
   * The URLs of documents and modules that the sandbox waits for. `dynamic` is true if card code
   * imports the modules with `import()`. Such code may catch the import's error, and continue.
   */
  | { type: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  /** The host can't run tasks any longer. It sends `done` after this response, and exits. */
  | { type: "error"; error: ErrorDocument }
  /** The last line about a task, unless a card hung or ended its sandbox. */
  | { type: "done" }
  /** The host has started a new sandbox and waits for the next `Order`. */
  | { type: "ready" }
  /**
   * The last line about a task if a card hung or ended its sandbox. If the card itself is at fault,
   * the host has already sent the card's error. The card isn't at fault if the module of a linked
   * card hung, or if work that an earlier card left behind hung. A new process has to render the
   * remaining cards. `unavailable` has the errors of all modules that are known to hang. The
   * reindex sends these errors to the new process in an `Order`.
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
  /** The URLs of the linked cards that the rendering asked for, including missing cards. */
  links: string[];
  /** Faults that did not prevent the rendering. */
  warnings: Warning[];
  /**
   * The images of the card, and the links in its Markdown. The reindex checks whether they lead to
   * existing files.
   */
  references: Reference[];
}

/** Tells an author why a card can't be rendered, or why a module can't be loaded. */
export interface ErrorDocument {
  /**
   * An HTTP status. 503 means that the reindex should try again in another sandbox. Any other
   * status means that the card or its code is at fault.
   */
  status: number;
  title: string;
  message: string;
  /**
   * The messages of the error's causes, which are found through JavaScript's property `cause`. The
   * direct cause comes first, followed by the cause of the direct cause, and so on.
   */
  causes: string[];
  /** The public URL of the card that can't be rendered. */
  card?: string;
  /** The field that can't be read, as a path inside the card's document: `addresses.0.city`. */
  field?: string;
  /** The URL of the module in which the error occurred, if it is known. */
  module?: string;
  /** The line of the module's source at which the error occurred, counted from 1. */
  line?: number;
  /**
   * Only if a module's definitions can't be built: the errors of the modules that this module
   * imports. If one of these errors caused another, the cause comes first.
   */
  dependencies?: ErrorDocument[];
}

/**
 * The host's requests to its sandbox. `task` and `supply` are lines of stdin, which the host
 * doesn't parse.
 */
export type Ask =
  | { ask: "prepare"; task: string; unavailable: Record<string, ErrorDocument> }
  /** The sandbox only answers. An idle sandbox answers in time, and the host then ends it. */
  | { ask: "rest" }
  | { ask: "card"; index: number }
  | { ask: "definitions" }
  /**
   * Answers the sandbox's `needs`. The sandbox handles a `supply` at once, because the current
   * request waits for it. All other requests are handled one after another.
   */
  | { ask: "supply"; supply: string };

/**
 * The sandbox's messages to its host. The sandbox sends one `result` after it has loaded the card
 * library, and one `result` for each request except `supply`.
 */
export type Tell =
  /** The sandbox begins to handle a request. */
  | { tell: "started" }
  /** Sent in place of the first `result` if the sandbox can't load the card library. */
  | { tell: "failed"; message: string }
  /**
   * The sandbox begins to import a module. `own` is true if the sandbox is about to render a card
   * with a type of this module, or to build the module's definitions.
   */
  | { tell: "importing"; module: string; own: boolean }
  | { tell: "imported" }
  | { tell: "needs"; documents: string[]; modules: string[]; dynamic: boolean }
  /**
   * `json` is the JSON of a `Result`. `json` is undefined if the request has no `Result`, or if
   * even the error of a failed request can't be written as JSON.
   */
  | { tell: "result"; ms: number; json?: string };
