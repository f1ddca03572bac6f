/**
 * Renders the cards of one task in the sandbox, the Worker that runs card code.
 *
 * Templates are synchronous, so a render can't wait for linked cards. If a template needs a linked
 * card that is not loaded yet, the sandbox discards the render's result. It requests the linked
 * card's document and the module of its type, and starts a new render. The cards to which the
 * rendered card itself links are requested before its first render. Cards that are further away are
 * requested only if a template follows the links.
 */
import type { CardClass, CardDocument, CodeRef } from "@realm/base";
import { CardProblem, errorDocument } from "./errors.ts";
import type { Loader } from "./loader.ts";
import { type Base, Modules, resolveType } from "./modules.ts";
import type { CardsTask, ErrorDocument, RenderedCard, Supply, Tell } from "./protocol.ts";

/** The maximum number of attempts to render a card. */
const MAX_ATTEMPTS = 100;

/**
 * The maximum number of warnings per card. When the author has fixed these warnings, further
 * warnings appear.
 */
const MAX_WARNINGS = 20;

/** The documents and modules that a render needs to continue. */
class Missing {
  readonly documents = new Set<string>();
  readonly modules = new Set<string>();

  get any(): boolean {
    return this.documents.size + this.modules.size > 0;
  }
}

export class Cards {
  readonly #task: CardsTask;
  readonly #documents: Map<string, CardDocument | null>;
  readonly #modules: Modules;
  readonly #base: Base;
  readonly #loader: Loader;
  readonly #needs: (documents: string[]) => Promise<Supply>;
  /** For each module, references to the card types that the module and its imports export. */
  readonly #refs = new Map<string, InstanceType<Base["CodeRefs"]>>();
  readonly #addresses: [string, string][];

  /**
   * `unavailable` has the errors of modules that hung in an earlier sandbox. `needs` requests
   * documents from the host. A document is null if there is no card at its URL.
   */
  constructor(
    task: CardsTask,
    { loader, base }: { loader: Loader; base: Base },
    unavailable: Record<string, ErrorDocument>,
    tell: (message: Tell) => void,
    needs: (documents: string[]) => Promise<Supply>,
  ) {
    this.#task = { ...task, realm: frozen(task.realm) };
    this.#base = base;
    this.#loader = loader;
    loader.supply(task.sources ?? {});
    this.#addresses = Object.entries(task.addresses ?? {});
    this.#documents = new Map(Object.entries(task.linked ?? {}));
    for (const { url, doc } of task.cards) this.#documents.set(url, doc);
    this.#modules = new Modules(loader, base, tell, unavailable);
    this.#needs = needs;
  }

  async render(index: number): Promise<RenderedCard> {
    const { url, doc } = this.#task.cards[index];
    if (typeof doc?.data !== "object" || doc.data === null) {
      throw CardProblem.of(422, "Not a card", "The document has no data object");
    }
    const type = resolveType(this.#base, url, doc.data.meta?.adoptsFrom);
    await this.#modules.load(type.module, true);
    const cardClass = this.#modules.cardClass(type);
    const types = [type, ...await this.#types(type.module, cardClass)];
    await this.#fetch(this.#expected(url, doc));
    for (let attempts = 1;; attempts++) {
      const missing = new Missing();
      try {
        const rendered = this.#render(url, doc, cardClass, types, missing);
        if (!missing.any) return rendered;
      } catch (error) {
        // A missing document or module may have caused the error, so the card is rendered again.
        if (!missing.any) throw error;
      }
      if (attempts === MAX_ATTEMPTS) {
        const message =
          `After ${attempts} attempts, its templates still needed cards that were not loaded`;
        throw CardProblem.of(422, "The card follows too many links", message);
      }
      await this.#fetch(missing);
    }
  }

  #render(
    url: string,
    doc: CardDocument,
    cardClass: CardClass,
    types: CodeRef[],
    missing: Missing,
  ): RenderedCard {
    const { realm } = this.#task;
    const { CardStore, checkDocument, FORMATS, referencesOf, renderCard, searchDocument, Styles } =
      this.#base;
    // A store that was used before would already hold linked cards, and wouldn't request their
    // documents again. `used` would lack their URLs. So each render has a store of its own.
    const used = new Set<string>();
    const store = new CardStore({
      document: (linked) => {
        used.add(linked);
        return this.#document(linked, missing);
      },
      type: (linked, document) => this.#linkedType(linked, document, missing),
      address: (linked) => this.#addressOf(linked),
    });
    const card = attempt("The card can't be created", () => store.add(url, frozen(doc), cardClass));
    const warnings = attempt("The card doesn't fit its type", () => checkDocument(card, doc));
    const search = attempt(
      "The card's fields can't be read",
      () => searchDocument(card, types[0], realm, types),
    );
    // The card's page shows the isolated format. So the head of the page gets the styles of all
    // cards that the isolated format shows.
    const moduleOf = (type: CardClass) => this.#loader.exporterOf(type);
    const styles = new Styles(moduleOf);
    const html = Object.fromEntries(FORMATS.map((format) => [
      format,
      attempt(
        `The ${format} template failed`,
        () =>
          renderCard(card, format, realm, format === "isolated" ? styles : new Styles(moduleOf)),
      ),
    ]));
    html.head = styles.head(html.head, realm);
    return {
      html: html as RenderedCard["html"],
      search: search as RenderedCard["search"],
      links: [...used],
      warnings: warnings.slice(0, MAX_WARNINGS),
      references: attempt("The card's fields can't be read", () => referencesOf(card)),
    };
  }

  #document(url: string, missing: Missing): CardDocument | undefined {
    const document = this.#documents.get(url);
    if (document !== undefined) return frozen(document) ?? undefined;
    missing.documents.add(url);
    throw new Error(`The card ${url} is not loaded yet`);
  }

  #linkedType(url: string, document: CardDocument, missing: Missing): CardClass | null {
    try {
      const type = resolveType(this.#base, url, document.data?.meta?.adoptsFrom);
      if (!this.#modules.knows(type.module)) missing.modules.add(type.module);
      return this.#modules.cardClass(type);
    } catch {
      // A linked card with a broken type is shown as unavailable. The linked card's own page shows
      // the error.
      return null;
    }
  }

  /**
   * What is not loaded yet of the cards to which a card links: their documents and the modules of
   * their types. `render` fetches both before its first attempt, because most templates show these
   * cards.
   */
  #expected(url: string, doc: CardDocument): Missing {
    const missing = new Missing();
    for (const linked of this.#base.allLinkedURLs(doc.data.relationships, url)) {
      const document = this.#documents.get(linked);
      if (document) this.#linkedType(linked, document, missing);
      else if (document === undefined) missing.documents.add(linked);
    }
    return missing;
  }

  async #fetch(missing: Missing): Promise<void> {
    if (missing.documents.size > 0) {
      const urls = [...missing.documents];
      for (const url of urls) this.#documents.set(url, null);
      const found = await this.#needs(urls);
      for (const [url, document] of Object.entries(found.documents)) {
        this.#documents.set(url, document);
      }
      for (const url of urls) {
        const document = this.#documents.get(url);
        if (document) this.#linkedType(url, document, missing);
      }
    }
    for (const module of missing.modules) await this.#modules.load(module, false);
  }

  /**
   * References to a card type and to its ancestors. Each reference names a module that exports the
   * type: the parameter `module`, an import of `module`, or `@realm/base`. An ancestor is left out
   * if none of these modules exports it.
   */
  async #types(module: string, cardClass: CardClass): Promise<CodeRef[]> {
    let refs = this.#refs.get(module);
    if (!refs) {
      refs = new this.#base.CodeRefs();
      refs.register("@realm/base", this.#base);
      for (const imported of this.#task.imports?.[module] ?? []) {
        await this.#modules.load(imported, false);
        try {
          refs.register(imported, this.#modules.exports(imported));
        } catch {
          // `imported` can't be loaded, but `render` has loaded `module`. So `module` doesn't need
          // `imported`, and no ancestor of its types comes from there.
        }
      }
      refs.register(module, this.#modules.exports(module));
      this.#refs.set(module, refs);
    }
    return [refs.of(cardClass), ...refs.chain(cardClass)];
  }

  #addressOf(url: string): string {
    for (const [realm, address] of this.#addresses) {
      if (url.startsWith(realm)) return address + url.slice(realm.length);
    }
    return url;
  }
}

/** Freezes a value with all its parts. Cards share documents, so no template may change them. */
function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const each of Object.values(value)) frozen(each);
  }
  return value;
}

function attempt<T>(title: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new CardProblem(errorDocument(error, title));
  }
}
