/** Resolves the URLs of cards and other files. No function throws an error for an invalid URL. */

/** Resolves `href` against `base`. Returns null if the result isn't a URL. */
export function resolveURL(href: string, base: string): string | null {
  return URL.parse(href, base)?.href ?? null;
}

/**
 * Caches the results of `resolveCardURL` by `base` and `href`, because parsing a URL is slow.
 * Templates, checks and search documents resolve the same links of a card.
 */
const resolved = new Map<string, Map<string, string | null>>();
const MAX_BASES = 100;

/**
 * Resolves `href`, a link to a card, against `base`. The result is absolute and has no `.json`,
 * query or hash. A folder's URL becomes the URL of the folder's `index` card. Returns null if the
 * URL is invalid, or is no `http:` or `https:` URL.
 */
export function resolveCardURL(href: string, base: string): string | null {
  let known = resolved.get(base);
  if (!known) {
    if (resolved.size >= MAX_BASES) resolved.clear();
    resolved.set(base, known = new Map());
  }
  let url = known.get(href);
  if (url === undefined) known.set(href, url = cardURL(href, base));
  return url;
}

function cardURL(href: string, base: string): string | null {
  const url = URL.parse(href, base);
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:")) return null;
  const path = url.pathname.replace(/\.json$/, "").split("/").map(inOneSpelling).join("/");
  return `${url.origin}${path}${path.endsWith("/") ? "index" : ""}`;
}

/** The URL of a card's page. The page of a folder's `index` card has the folder's URL. */
export function pageURL(url: string): string {
  return url.replace(/\/index$/, "/");
}

/** Escapes a path segment as the server does, so that each segment has only one spelling. */
function inOneSpelling(segment: string): string {
  if (/^[\w.~!*'():@$&+,;=[\]|^-]*$/.test(segment)) return segment;
  try {
    return encodeURIComponent(decodeURIComponent(segment))
      .replaceAll(/%(?:3A|40|24|26|2B|2C|3B|3D|5B|5D|7C|5E)/g, decodeURIComponent);
  } catch {
    // The escapes are malformed or not UTF-8, so no file has this URL.
    return segment;
  }
}

/** The last path segment of a URL, with decoded percent-escapes. */
export function lastSegment(url: string): string {
  const segment = url.replace(/\/+$/, "").split("/").pop() ?? "";
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
