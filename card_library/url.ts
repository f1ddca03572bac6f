/** URLs of cards and of things beside them. Nothing here throws: a bad URL is null. */

/** `href` as seen from `base`, or null if that isn't a URL. */
export function resolveURL(href: string, base: string): string | null {
  return URL.parse(href, base)?.href ?? null;
}

/**
 * The card that `href` names as seen from `base`: absolute, without `.json`, query and hash, and in the one
 * spelling that a card's URL has. A folder stands for its `index`.
 */
export function resolveCardURL(href: string, base: string): string | null {
  const url = URL.parse(href, base);
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:")) return null;
  const path = url.pathname.replace(/\.json$/, "").split("/").map(inOneSpelling).join("/");
  return `${url.origin}${path}${path.endsWith("/") ? "index" : ""}`;
}

/** Where the page of the card at a URL is: that of a folder's `index` is the folder. */
export function pageURL(url: string): string {
  return url.replace(/\/index$/, "/");
}

/** A path segment with those characters escaped that have to be, as the server spells it. */
function inOneSpelling(segment: string): string {
  if (/^[\w.~!*'():@$&+,;=[\]|^-]*$/.test(segment)) return segment;
  try {
    return encodeURIComponent(decodeURIComponent(segment))
      .replaceAll(/%(?:3A|40|24|26|2B|2C|3B|3D|5B|5D|7C|5E)/g, decodeURIComponent);
  } catch {
    // No bytes of a text are escaped like this: it leads nowhere.
    return segment;
  }
}

/** The last path segment of a URL, for people to read. */
export function lastSegment(url: string): string {
  const segment = url.replace(/\/+$/, "").split("/").pop() ?? "";
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
