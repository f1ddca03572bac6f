/** Small helpers for templates. */
import { Card, pageOf, stateOf } from "./card.ts";
import { resolveURL } from "./url.ts";

/** The public URL of a card's page; `""` for null. */
export function urlOf(card: Card | null | undefined): string {
  return card ? pageOf(card) : "";
}

/**
 * The absolute URL of a file: `asset("./x.svg", import.meta.url)`. `base` is a card or the URL of a
 * module, and `path` is relative to `base`.
 */
export function asset(path: string, base: Card | string): string {
  const url = resolveURL(path, base instanceof Card ? stateOf(base).url : base);
  if (url === null) throw new TypeError(`${JSON.stringify(path)} is not the path of a file`);
  return url;
}

const DAY: Intl.DateTimeFormatOptions = { day: "numeric", month: "long", year: "numeric" };
const formatters = new Map<string, Intl.DateTimeFormat>();

/**
 * Formats a date for readers. Returns `""` for null. The text is in British English. The time zone
 * is UTC unless `options` contains another. So a page is the same wherever it is rendered.
 */
export function formatDate(
  date: Date | null | undefined,
  options: Intl.DateTimeFormatOptions = DAY,
): string {
  if (!date) return "";
  // Keeps only primitive values, because an object could give another value each time it is read.
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
