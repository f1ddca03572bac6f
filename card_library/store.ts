/**
 * The cards of one render. The store creates a linked card when a link to it is first followed.
 */
import { Card, createCard } from "./card.ts";
import type { CardClass, CardDocument } from "./types.ts";

/** Replaces a linked card whose type can't be loaded. An `UnavailableCard` has only a title. */
export class UnavailableCard extends Card {
  static displayName = "Unavailable";
}

/** The source of a store's documents and types. */
export interface CardSource {
  document(url: string): CardDocument | undefined;
  /** The type of a card, or null if its module can't be loaded. */
  type(url: string, document: CardDocument): CardClass | null;
  /** The URL of a card's page, if it differs from the card's URL. */
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
   * The URL of a card's page. For a card of a published source realm, this is a URL in the
   * published realm.
   */
  address(url: string): string {
    return this.#source.address?.(url) ?? url;
  }

  /** A linked card; null if there is none at this URL. */
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
