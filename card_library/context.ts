/**
 * The context of the components in a template: the card that the template renders, and the cards
 * that embed this card.
 */
import { createContext } from "preact";
import type { Card } from "./card.ts";
import type { Styles } from "./styles.ts";
import type { AnyTemplate, Format, RealmInfo } from "./types.ts";

export interface Place {
  card: Card;
  format: Format;
  realm: RealmInfo;
  /** The place of the card that embeds `card`; null if no card embeds `card`. */
  around: Place | null;
  depth: number;
  /** The templates for cards whose type has no template of its own. */
  defaults: Record<Format, AnyTemplate>;
  /** The styles of the cards in the page. */
  styles: Styles;
}

export const PlaceContext = createContext<Place | null>(null);

/** Whether `place`, or a place around `place`, renders `card` in one of `formats`. */
export function isAround(place: Place, card: Card, formats: readonly Format[]): boolean {
  for (let here: Place | null = place; here; here = here.around) {
    if (here.card === card && formats.includes(here.format)) return true;
  }
  return false;
}
