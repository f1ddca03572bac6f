/** URLs of cards and of things beside them. Nothing here throws: a bad URL is null. */

/** `href` as seen from `base`, or null if that isn't a URL. */
export function resolveURL(href: string, base: string): string | null {
  return URL.parse(href, base)?.href ?? null;
}

/** The card that `href` names as seen from `base`: absolute, without `.json`, query and hash. */
export function resolveCardURL(href: string, base: string): string | null {
  const url = URL.parse(href, base);
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:")) return null;
  return `${url.origin}${url.pathname.replace(/\.json$/, "")}`;
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
