/** Small helpers for templates. */
import { Card, pageOf, stateOf } from "./card.ts";
import { resolveURL } from "./url.ts";

/** The public URL of a card's page, or `""` if there is no card. */
export function urlOf(card: Card | null | undefined): string {
  return card ? pageOf(card) : "";
}

/**
 * The absolute URL of a file, for example `asset("./x.svg", import.meta.url)`. `path` is relative
 * to `base`, which is a card or the URL of a module.
 */
export function asset(path: string, base: Card | string): string {
  const url = resolveURL(path, base instanceof Card ? stateOf(base).url : base);
  if (url === null) throw new TypeError(`${JSON.stringify(path)} is not the path of a file`);
  return url;
}

const DAY: Intl.DateTimeFormatOptions = { day: "numeric", month: "long", year: "numeric" };
const formatters = new Map<string, Intl.DateTimeFormat>();

/**
 * Formats a date in British English. Returns `""` if there is no date. The time zone is UTC unless
 * `options` names another time zone. The settings of the machine that renders the page have no
 * effect.
 */
export function formatDate(
  date: Date | null | undefined,
  options: Intl.DateTimeFormatOptions = DAY,
): string {
  if (!date) return "";
  // Removes values that are objects. An object could convert itself to one value for the key below
  // and to another value for the formatter. Then the cache would return a wrong formatter.
  options = Object.fromEntries(
    Object.entries(options).filter(([, value]) => Object(value) !== value),
  );
  const key = JSON.stringify(Object.entries(options));
  let formatter = formatters.get(key);
  if (!formatter) {
    formatter = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
    formatters.set(key, formatter);
  }
  return formatter.format(date);
}
