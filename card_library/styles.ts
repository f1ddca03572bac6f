/**
 * The styles of one page: those of every card type that is shown in it, once each.
 *
 * A type's styles reach from the card's own root to where another card begins, so that neither a page
 * nor its neighbour can disfigure a card, whatever realm it comes from.
 */
import { Card } from "./card.ts";
import type { CardClass, RealmInfo } from "./types.ts";
import { resolveURL } from "./url.ts";

/** Where a card's styles end: at what lies inside a card that it embeds. */
const LIMIT = ":scope .rb-embed > *";

/** The styles that one type has of its own: in the page of such a card, and wherever one is embedded. */
interface Sheet {
  key: string;
  page: string;
  embedded: string;
}

interface TypeStyles {
  /** From `Card` down to the type, those that have styles. */
  sheets: Sheet[];
  keys: string | undefined;
}

/** Says which module a class is from; undefined for one that none exports. */
export type ModuleOf = (type: CardClass) => string | undefined;

function sheetOf(css: string): Sheet {
  const key = keyOf(css);
  const root = `[data-styles~="${key}"]`;
  // What would end the element is written as CSS escapes it.
  const rules = css.replaceAll("</", "<\\/").trim();
  const sheet = (roots: string) => `<style>@scope (${roots}) to (${LIMIT}){${rules}}</style>`;
  return { key, page: sheet(`body, ${root}`), embedded: sheet(root) };
}

/** From the text alone, so that a page comes out the same whatever was rendered before it. */
function keyOf(css: string): string {
  let [high, low] = [0xdeadbeef, 0x41c6ce57];
  for (let index = 0; index < css.length; index++) {
    high = Math.imul(high ^ css.charCodeAt(index), 0x9e3779b1);
    low = Math.imul(low ^ css.charCodeAt(index), 0x5f356495);
  }
  return `${(high >>> 0).toString(36)}${(low >>> 0).toString(36)}`;
}

/** CSS whose `url()`s are absolute: they are relative to the module that the CSS is written in. */
function rebased(css: string, module: string): string {
  return css.replaceAll(URLS, (whole, double, single, bare) => {
    const href: string | undefined = double ?? single ?? bare;
    if (!href || /^(?:[a-z][\w+.-]*:|\/\/|#)|\\/i.test(href)) return whole;
    const url = resolveURL(href, module);
    return url === null ? whole : `url("${url}")`;
  });
}

/** Comments, texts, and what of CSS may be an URL. */
const URLS =
  /\/\*.*?\*\/|url\(\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^"'()\s]+))\s*\)|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/gis;

export class Styles {
  readonly #sheets = new Map<string, string>();
  readonly #moduleOf: ModuleOf;
  readonly #known = new Map<CardClass, TypeStyles>([[Card, { sheets: [], keys: undefined }]]);
  #usesDefaults = false;

  constructor(moduleOf: ModuleOf = () => undefined) {
    this.#moduleOf = moduleOf;
  }

  /** What names a type's styles on the elements that they are for; undefined where it has none. */
  keys(type: CardClass): string | undefined {
    return this.#stylesOf(type).keys;
  }

  /** `heir` is the module of a class that extends this one, which may be in no module's exports. */
  #stylesOf(type: CardClass, heir?: string): TypeStyles {
    let styles = this.#known.get(type);
    if (!styles) {
      const module = this.#moduleOf(type) ?? heir;
      const sheets = [...this.#stylesOf(Object.getPrototypeOf(type), module).sheets];
      if (Object.hasOwn(type, "styles") && type.styles) {
        sheets.push(sheetOf(module === undefined ? type.styles : rebased(type.styles, module)));
      }
      styles = { sheets, keys: sheets.map(({ key }) => key).join(" ") || undefined };
      this.#known.set(type, styles);
    }
    return styles;
  }

  /** Makes sure of the styles that a card of this type needs; `page` if the page is about it. */
  use(type: CardClass, page: boolean): void {
    for (const sheet of this.#stylesOf(type).sheets) {
      // The page's own card comes first: what it shares with others has both roots then.
      if (!this.#sheets.has(sheet.key)) {
        this.#sheets.set(sheet.key, page ? sheet.page : sheet.embedded);
      }
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
      ? `<link rel="stylesheet" href="${realm.baseURL}card.css"/>`
      : "";
    return defaults + html + [...this.#sheets.values()].join("");
  }
}
