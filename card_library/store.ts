/**
 * A `CardStore` holds a card that is being rendered, and its linked cards. The store creates each
 * linked card at the first `get` of its URL.
 */
import { Card, createCard } from "./card.ts";
import type { CardClass, CardDocument } from "./types.ts";

/**
 * Stands for a linked card if the card's type can't be loaded. An `UnavailableCard` has no fields.
 * `<Embed>` shows only a link with the title from the card's document.
 */
export class UnavailableCard extends Card {
  static displayName = "Unavailable";
}

/** Gives a store the documents and types of cards. */
export interface CardSource {
  document(url: string): CardDocument | undefined;
  /** The type of a card; null if the type can't be loaded. */
  type(url: string, document: CardDocument): CardClass | null;
  /** The result of `CardStore.address`. Without this method, `CardStore.address` returns `url`. */
  address?(url: string): string;
}

export class CardStore {
  readonly #cards = new Map<string, Card | null>();
  readonly #source: CardSource;

  constructor(source: CardSource) {
    this.#source = source;
  }

  /** Creates a card of the given type. */
  add(url: string, document: CardDocument, type: CardClass): Card {
    const card = createCard(type, {
      url,
      attributes: document.data.attributes ?? {},
      relationships: document.data.relationships ?? {},
      path: "",
      store: this,
    });
    this.#cards.set(url, card);
    return card;
  }

  /**
   * The URL at which visitors find a card or another file. For a file of a source realm that is
   * published, this is a URL in the published realm. For any other file, it is `url` itself.
   */
  address(url: string): string {
    return this.#source.address?.(url) ?? url;
  }

  /** The card at a URL; null if there is no card. */
  get(url: string): Card | null {
    const known = this.#cards.get(url);
    if (known !== undefined) return known;
    const document = this.#source.document(url);
    if (document) {
      return this.add(url, document, this.#source.type(url, document) ?? UnavailableCard);
    }
    this.#cards.set(url, null);
    return null;
  }
}
