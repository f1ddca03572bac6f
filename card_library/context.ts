/**
 * The context of a template's components: the card whose template it is, and the cards that are being
 * rendered around it.
 */
import { createContext } from "preact";
import type { Card } from "./card.ts";
import type { Styles } from "./styles.ts";
import type { AnyTemplate, Format, RealmInfo } from "./types.ts";

export interface Place {
  card: Card;
  format: Format;
  realm: RealmInfo;
  /** The place of the template that embeds this one; null at the top. */
  around: Place | null;
  depth: number;
  /** The templates for cards that have none of their own. */
  defaults: Record<Format, AnyTemplate>;
  /** The styles of the cards in the page. */
  styles: Styles;
}

export const PlaceContext = createContext<Place | null>(null);

/**
 * Whether `card` is being rendered in one of `formats`: by the template at `place`, or by a
 * template that embeds this template, directly or not.
 */
export function isAround(place: Place, card: Card, formats: readonly Format[]): boolean {
  for (let here: Place | null = place; here; here = here.around) {
    if (here.card === card && formats.includes(here.format)) return true;
  }
  return false;
}
