/** What a prerenderer calls for a card's HTML in a format. */
import { options } from "preact";
import { renderToString } from "preact-render-to-string";
import type { Card } from "./card.ts";
import { defaultTemplates } from "./defaults.tsx";
import { nested } from "./embed.tsx";
import { Styles } from "./styles.ts";
import type { Format, RealmInfo } from "./types.ts";

export const FORMATS: readonly Format[] = ["isolated", "embedded", "fitted", "atom", "head"];

// `<Embed>` catches what the template of a linked card throws; preact does this only when asked.
(options as { errorBoundaries?: boolean }).errorBoundaries = true;

/**
 * The HTML of a card in one format; `styles` gathers what it needs to look right. Throws what its
 * templates and fields throw.
 */
export function renderCard(
  card: Card,
  format: Format,
  realm: RealmInfo,
  styles = new Styles(),
): string {
  return renderToString(
    nested({ card, format, realm, around: null, depth: 0, defaults: defaultTemplates, styles }),
    // A context of its own: the renderer's own empty one would be shared by all pages.
    {},
  );
}
