/**
 * The Preact context of the components in a template. It says which card the template renders, and
 * which cards are around this card on the page.
 */
import { createContext } from "preact";
import type { Card } from "./card.ts";
import type { Styles } from "./styles.ts";
import type { AnyTemplate, Format, RealmInfo } from "./types.ts";

/** A card that a page shows, and where and how the page shows it. */
export interface Place {
  card: Card;
  format: Format;
  realm: RealmInfo;
  /** The place of the card that embeds `card`; null if no card embeds `card`. */
  around: Place | null;
  /** How many places are around this place. */
  depth: number;
  /** For each format, the template for card types without a template of their own. */
  defaults: Record<Format, AnyTemplate>;
  /** Collects the styles that the page needs for its cards. */
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
