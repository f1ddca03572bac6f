/**
 * Collects the styles of one page. The styles of each card type on the page are included once.
 *
 * A type's styles apply to cards of the type, but not to the contents of embedded cards. So
 * embedded cards can't disfigure the page, and cards can't disfigure each other.
 */
import { Card } from "./card.ts";
import type { CardClass, RealmInfo } from "./types.ts";
import { resolveURL } from "./url.ts";

/** Matches the contents of embedded cards. The styles of the card around them don't apply there. */
const LIMIT = ":scope .rb-embed > *";

/** One type's own styles, as a `<style>` element for a card's page and one for an embedded card. */
interface Sheet {
  key: string;
  page: string;
  embedded: string;
}

interface TypeStyles {
  /** The classes with styles, from `Card` down to the type. */
  sheets: Sheet[];
  keys: string | undefined;
}

/** Returns the module that exports a class; undefined if no module exports the class. */
export type ModuleOf = (type: CardClass) => string | undefined;

function sheetOf(css: string): Sheet {
  const key = keyOf(css);
  const root = `[data-styles~="${key}"]`;
  // `</` would end the style element, so it is escaped.
  const rules = css.replaceAll("</", "<\\/").trim();
  const sheet = (roots: string) => `<style>@scope (${roots}) to (${LIMIT}){${rules}}</style>`;
  return { key, page: sheet(`body, ${root}`), embedded: sheet(root) };
}

/** A hash of the text alone, so that a page doesn't depend on what was rendered before it. */
function keyOf(css: string): string {
  let [high, low] = [0xdeadbeef, 0x41c6ce57];
  for (let index = 0; index < css.length; index++) {
    high = Math.imul(high ^ css.charCodeAt(index), 0x9e3779b1);
    low = Math.imul(low ^ css.charCodeAt(index), 0x5f356495);
  }
  return `${(high >>> 0).toString(36)}${(low >>> 0).toString(36)}`;
}

/** Makes the `url()`s of CSS absolute. They are relative to the module that contains the CSS. */
function rebased(css: string, module: string): string {
  return css.replaceAll(URLS, (whole, double, single, bare) => {
    const href: string | undefined = double ?? single ?? bare;
    if (!href || /^(?:[a-z][\w+.-]*:|\/\/|#)|\\/i.test(href)) return whole;
    const url = resolveURL(href, module);
    return url === null ? whole : `url("${url}")`;
  });
}

/**
 * Matches the `url()`s of CSS. Also matches whole comments and strings, so that a `url()` inside a
 * comment or string has no match of its own and stays unchanged.
 */
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

  /** The value of `data-styles` for a card of this type; undefined if the type has no styles. */
  keys(type: CardClass): string | undefined {
    return this.#stylesOf(type).keys;
  }

  /**
   * `heir` is the module of a subclass. If no module exports `type`, the `url()`s in its CSS are
   * relative to `heir`.
   */
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

  /**
   * Adds the styles that a card of this type needs. `page` is true for the page's own card, and
   * false for an embedded card.
   */
  use(type: CardClass, page: boolean): void {
    for (const sheet of this.#stylesOf(type).sheets) {
      // The page's own card is rendered first, so that styles it shares with embedded cards apply to
      // the body, too.
      if (!this.#sheets.has(sheet.key)) {
        this.#sheets.set(sheet.key, page ? sheet.page : sheet.embedded);
      }
    }
  }

  /** Notes that the page shows a default template and therefore needs card.css. */
  useDefaults(): void {
    this.#usesDefaults = true;
  }

  /** The head of the page: `html` and the styles that the page's cards need. */
  head(html: string, realm: RealmInfo): string {
    // A realm without a stylesheet uses card.css on every page.
    const defaults = this.#usesDefaults || !realm.stylesheet
      ? `<link rel="stylesheet" href="${realm.baseURL}card.css"/>`
      : "";
    return defaults + html + [...this.#sheets.values()].join("");
  }
}
