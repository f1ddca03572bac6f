/**
 * Collects the styles of one page. The styles of each card type on the page are included once.
 *
 * A type's styles apply inside the cards of the type, but end where such a card embeds another
 * card. Only the styles of the page's own card also apply to the rest of the page's body. So an
 * embedded card can't disfigure the page, and no card can disfigure another card.
 */
import { Card } from "./card.ts";
import type { CardClass, RealmInfo } from "./types.ts";
import { resolveURL } from "./url.ts";

/** A CSS selector for the contents of embedded cards. There, the styles of the outer card end. */
const LIMIT = ":scope .rb-embed > *";

/**
 * The styles that one class declares, as two `<style>` elements. A page has the element `page` if
 * its own card is of this class, and the element `embedded` if it only embeds cards of this class.
 * `key` identifies the styles in the attribute `data-styles` of a card's HTML element.
 */
interface Sheet {
  key: string;
  page: string;
  embedded: string;
}

interface TypeStyles {
  /** The styles of the type's ancestors and of the type itself. The type's own styles come last. */
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

/**
 * A hash of the CSS. The key depends on nothing else, so each render of a card gives the same HTML.
 */
function keyOf(css: string): string {
  let [high, low] = [0xdeadbeef, 0x41c6ce57];
  for (let index = 0; index < css.length; index++) {
    high = Math.imul(high ^ css.charCodeAt(index), 0x9e3779b1);
    low = Math.imul(low ^ css.charCodeAt(index), 0x5f356495);
  }
  return `${(high >>> 0).toString(36)}${(low >>> 0).toString(36)}`;
}

/** Makes the `url()`s of CSS absolute. `module` is the URL to which they are relative. */
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
   * The styles of a type and of its ancestors. `heir` is the module that exports a subclass of
   * `type`. If no module exports `type`, the `url()`s in the CSS of `type` are relative to `heir`.
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
      // The page's own card comes first. If an embedded card needs the same sheet, `sheet.page` is
      // kept, because it applies to the body and to embedded cards.
      if (!this.#sheets.has(sheet.key)) {
        this.#sheets.set(sheet.key, page ? sheet.page : sheet.embedded);
      }
    }
  }

  /** Notes that the page shows a default template, so it needs card.css. */
  useDefaults(): void {
    this.#usesDefaults = true;
  }

  /** The head of the page: a link to card.css if needed, `html`, and the styles of the cards. */
  head(html: string, realm: RealmInfo): string {
    // If the realm has no stylesheet, the page uses page.css, which uses variables of card.css.
    const defaults = this.#usesDefaults || !realm.stylesheet
      ? `<link rel="stylesheet" href="${realm.baseURL}card.css"/>`
      : "";
    return defaults + html + [...this.#sheets.values()].join("");
  }
}
