/** Renders a card in a format. The prerenderer (`reindex/deno/cards.ts`) calls `renderCard`. */
import { options } from "preact";
import { renderToString } from "preact-render-to-string";
import type { Card } from "./card.ts";
import { defaultTemplates } from "./defaults.tsx";
import { nested } from "./embed.tsx";
import { Styles } from "./styles.ts";
import type { Format, RealmInfo } from "./types.ts";

export const FORMATS: readonly Format[] = ["isolated", "embedded", "fitted", "atom", "head"];

// `<Embed>` catches the errors of a linked card's template. Preact lets components catch errors
// only with this option.
(options as { errorBoundaries?: boolean }).errorBoundaries = true;

/**
 * The HTML of a card in one format. Collects in `styles` the styles that the HTML needs. Throws the
 * errors of the card's templates and fields.
 */
export function renderCard(
  card: Card,
  format: Format,
  realm: RealmInfo,
  styles = new Styles(),
): string {
  return renderToString(
    nested({ card, format, realm, around: null, depth: 0, defaults: defaultTemplates, styles }),
    // This empty object is the page's context. Without it, all pages would share one object.
    {},
  );
}
