/**
 * The cards that one render can reach, made from their documents when a link is first followed.
 *
 * One store serves one render.
 */
import { Card, createCard } from "./card.ts";
import type { CardClass, CardDocument } from "./types.ts";

/** Stands for a linked card whose type can't be loaded; it has a title and nothing else. */
export class UnavailableCard extends Card {
  static displayName = "Unavailable";
}

/** Where a store finds documents and types. */
export interface CardSource {
  document(url: string): CardDocument | undefined;
  /** The type of a card, or null where its module can't be loaded. */
  type(url: string, document: CardDocument): CardClass | null;
  /** Where the page of a card is, if not at its own URL. */
  address?(url: string): string;
}

export class CardStore {
  readonly #cards = new Map<string, Card | null>();
  readonly #source: CardSource;

  constructor(source: CardSource) {
    this.#source = source;
  }

  /** The card of a type that is already known: the one that this render is about. */
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

  /** Where the page of a card is: a source realm's pages are where that is published. */
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
