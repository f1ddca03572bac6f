/**
 * The messages between the reindex and the prerenderer, and those between the host and its sandbox.
 *
 * The reindex writes one `Request` line to the host's stdin and keeps stdin open; the host answers with
 * lines `\n<nonce><JSON of a Response>\n`. Anything else on stdout was written by card code, which
 * never learns the nonce, and must be ignored.
 *
 * The import map that the reindex makes leads every spelling of a pinned realm to `/_at/<token>/`, and
 * the rest of the replica nowhere: permissions are by host, so only the map keeps out what isn't pinned.
 */
import type { CardDocument, CodeRef, Definition, Format, RealmInfo } from "@realm/base";

/** The one line that the host reads. */
export interface Request {
  nonce: string;
  /** Host and port of the replica: the only place that card code can be imported from. */
  replica: string;
  /** For each card with its imports, and for the definitions of one module. */
  timeLimitMs: number;
  /** Pinned URL prefixes (`http://<replica>/_at/<token>/`) and the public ones that they stand for. */
  urls?: Record<string, string>;
  /** Modules that hung an earlier host, as its `stopped` told. */
  unavailable?: Record<string, ErrorDocument>;
  task: CardsTask | DefinitionsTask;
}

export interface CardsTask {
  type: "cards";
  realm: RealmInfo;
  cards: CardToRender[];
  /** Documents that the cards can reach through links, by card URL. */
  linked?: Record<string, CardDocument>;
  /** Public URLs of everything that a card's module imports, dependencies first, by its own URL. */
  imports?: Record<string, string[]>;
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
  | CardResponse
  | { type: "definitions"; definitions: Record<string, Definition> }
  | { type: "error"; error: ErrorDocument }
  /**
   * The last line, unless a card hung: then that card has its error, and the cards without an answer
   * are to be asked for again in a new process, with `unavailable` in the request.
   */
  | { type: "done" }
  | { type: "stopped"; unavailable: Record<string, ErrorDocument> };

export type CardResponse =
  & { type: "card"; url: string; ms: number }
  & (RenderedCard | { error: ErrorDocument });

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
}

/** What the host asks its sandbox. */
export type Ask =
  | ({ ask: "prepare"; unavailable: Record<string, ErrorDocument> } & CardsTask)
  | { ask: "card"; index: number }
  | ({ ask: "definitions" } & DefinitionsTask);

/** What the sandbox tells its host. Every ask ends in one `result`, and so does starting. */
export type Tell =
  | { tell: "started" }
  | { tell: "importing"; module: string; own: boolean }
  | { tell: "imported" }
  | { tell: "result"; result: Result };

export type Result =
  | { prepared: true }
  | { card: RenderedCard }
  | { definitions: Record<string, Definition> }
  | { error: ErrorDocument };
