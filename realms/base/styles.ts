/**
 * The styles of one page: those of every card type that is shown in it, once each.
 *
 * A type's styles reach from the card's own root to where another card begins, so that neither a page
 * nor its neighbour can disfigure a card, whatever realm it comes from.
 */
import { Card } from "./card.ts";
import type { CardClass, RealmInfo } from "./types.ts";

/** Where a card's styles end: at what lies inside a card that it embeds. */
const LIMIT = ":scope .rb-embed > *";

const keys = new WeakMap<CardClass, string>();

export class Styles {
  readonly #sheets = new Map<string, string>();
  #usesDefaults = false;

  /** Makes sure of the styles that a card of this type needs; `page` if the page is about it. */
  use(type: CardClass, page: boolean): void {
    for (const styled of styledAncestors(type)) {
      const key = keyOf(styled);
      const roots = page ? `body, [data-styles~="${key}"]` : `[data-styles~="${key}"]`;
      // The page's own card comes first: what it shares with others has both roots then.
      if (!this.#sheets.has(key)) this.#sheets.set(key, sheet(roots, styled.styles ?? ""));
    }
  }

  /** A default template is shown, which has its styles in a file. */
  useDefaults(): void {
    this.#usesDefaults = true;
  }

  /** The head of the page with the styles that its cards need. */
  head(html: string, realm: RealmInfo): string {
    // A page without a stylesheet of its realm's looks like the default templates altogether.
    const defaults = this.#usesDefaults || !realm.stylesheet
      ? `<link rel="stylesheet" href="${new URL("card.css", realm.baseURL)}"/>`
      : "";
    return defaults + html + [...this.#sheets.values()].join("");
  }
}

/** What names a type's styles on the elements that they are for; undefined where it has none. */
export function styleKeys(type: CardClass): string | undefined {
  return styledAncestors(type).map(keyOf).join(" ") || undefined;
}

/** The types from `Card` down to this one that have styles of their own. */
function styledAncestors(type: CardClass): CardClass[] {
  const found: CardClass[] = [];
  for (let here = type; here !== Card; here = Object.getPrototypeOf(here)) {
    if (Object.hasOwn(here, "styles") && here.styles) found.unshift(here);
  }
  return found;
}

function sheet(roots: string, css: string): string {
  // What would end the element is written as CSS escapes it.
  return `<style>@scope (${roots}) to (${LIMIT}){${css.replaceAll("</", "<\\/").trim()}}</style>`;
}

/** From the text alone, so that a page comes out the same whatever was rendered before it. */
function keyOf(type: CardClass): string {
  let key = keys.get(type);
  if (key === undefined) {
    let [high, low] = [0xdeadbeef, 0x41c6ce57];
    for (const character of type.styles ?? "") {
      const code = character.codePointAt(0) ?? 0;
      high = Math.imul(high ^ code, 0x9e3779b1);
      low = Math.imul(low ^ code, 0x5f356495);
    }
    key = `${(high >>> 0).toString(36)}${(low >>> 0).toString(36)}`;
    keys.set(type, key);
  }
  return key;
}
