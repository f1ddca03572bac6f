/** Rendering the cards of one batch in the sandbox. */
import * as base from "@realm/base";
import {
  allLinkedURLs,
  type CardClass,
  type CardDocument,
  CardStore,
  checkDocument,
  CodeRefs,
  FORMATS,
  renderCard,
  searchDocument,
  Styles,
} from "@realm/base";
import { CardProblem, errorDocument } from "./errors.ts";
import { Modules, resolveType } from "./modules.ts";
import type { CardsTask, ErrorDocument, RenderedCard, Tell } from "./protocol.ts";

export class Cards {
  readonly #task: CardsTask;
  readonly #documents: Map<string, CardDocument>;
  readonly #modules: Modules;
  /** Cards whose types, and those of everything they link to, have been loaded. */
  readonly #loaded = new Set<string>();
  readonly #refs = new CodeRefs();

  constructor(
    task: CardsTask,
    unavailable: Record<string, ErrorDocument>,
    tell: (message: Tell) => void,
  ) {
    this.#task = task;
    this.#documents = new Map(Object.entries(task.linked ?? {}));
    for (const { url, doc } of task.cards) this.#documents.set(url, doc);
    this.#modules = new Modules(tell, unavailable);
    this.#refs.register("@realm/base", base);
  }

  async render(index: number): Promise<RenderedCard> {
    const { url, doc } = this.#task.cards[index];
    const { realm } = this.#task;
    if (typeof doc?.data !== "object" || doc.data === null) {
      throw CardProblem.of(422, "Not a card", "The document has no data object");
    }
    const type = resolveType(url, doc.data.meta?.adoptsFrom);
    await this.#modules.load(type.module, true);
    const cardClass = this.#modules.cardClass(type);
    await this.#loadLinked(url, doc);
    const types = [type, ...await this.#types(type.module, cardClass)];

    // Every card gets instances of its own: what it depends on is what *it* asked for.
    const store = new CardStore({
      document: (linked) => this.#documents.get(linked),
      type: (linked, document) => this.#linkedType(linked, document),
    });
    const card = attempt("The card can't be made", () => store.add(url, doc, cardClass));
    attempt("The card doesn't fit its type", () => checkDocument(card));
    const search = attempt(
      "The card's fields can't be read",
      () => searchDocument(card, type, realm, types),
    );
    // The page's styles are those of all that its isolated format shows.
    const styles = new Styles();
    const html = Object.fromEntries(FORMATS.map((format) => [
      format,
      attempt(
        `The ${format} template failed`,
        () => renderCard(card, format, realm, format === "isolated" ? styles : undefined),
      ),
    ]));
    html.head = styles.head(html.head, realm);
    store.used.delete(url);
    return {
      html: html as RenderedCard["html"],
      search: search as RenderedCard["search"],
      links: [...store.used],
    };
  }

  /** Templates can't wait, so every type that a link may lead to is loaded before they run. */
  async #loadLinked(url: string, doc: CardDocument): Promise<void> {
    const open: [string, CardDocument][] = [[url, doc]];
    for (let next = open.pop(); next; next = open.pop()) {
      const [from, document] = next;
      if (this.#loaded.has(from)) continue;
      this.#loaded.add(from);
      for (const linked of allLinkedURLs(document.data?.relationships, from)) {
        const target = this.#documents.get(linked);
        if (!target || this.#loaded.has(linked)) continue;
        open.push([linked, target]);
        try {
          await this.#modules.load(
            resolveType(linked, target.data?.meta?.adoptsFrom).module,
            false,
          );
        } catch {
          // A linked card without a proper type shows as unavailable; it has an error of its own.
        }
      }
    }
  }

  /** The type as its module names it, and those that it adopts from: their modules, which it has
   * imported itself, tell their names. */
  async #types(module: string, cardClass: CardClass): Promise<base.CodeRef[]> {
    if (Object.getPrototypeOf(cardClass) !== base.Card) {
      for (const imported of this.#task.imports?.[module] ?? []) {
        await this.#modules.load(imported, false);
        try {
          this.#refs.register(imported, this.#modules.exports(imported));
        } catch {
          // The module got on without it, so none of its types come from there.
        }
      }
    }
    this.#refs.register(module, this.#modules.exports(module));
    return [this.#refs.of(cardClass), ...this.#refs.chain(cardClass)];
  }

  #linkedType(url: string, document: CardDocument): CardClass | null {
    try {
      return this.#modules.cardClass(resolveType(url, document.data?.meta?.adoptsFrom));
    } catch {
      return null;
    }
  }
}

function attempt<T>(title: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new CardProblem(errorDocument(error, title));
  }
}
