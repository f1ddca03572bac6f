/**
 * Puts public URLs back where pinned ones have come through, as in `import.meta.url` or in what Deno
 * says about an import: the token in them opens a private realm and must not reach a page.
 */

/** Tokens shorter than this occur only in tests, where they might be ordinary words. */
const MIN_TOKEN = 16;

export class PublicURLs {
  readonly #replacements: [string, string][];

  constructor(urls: Record<string, string>) {
    const prefixes = Object.entries(urls);
    const tokens = prefixes
      .map(([pinned]) => pinned.replace(/\/$/, "").split("/").pop() ?? "")
      .filter((token) => token.length >= MIN_TOKEN)
      .map((token): [string, string] => [token, "pinned"]);
    // Whole prefixes first: a token on its own is what remains of a URL that was taken apart.
    this.#replacements = [...prefixes, ...tokens];
  }

  restore(json: string): string {
    for (const [pinned, replacement] of this.#replacements) {
      if (json.includes(pinned)) json = json.replaceAll(pinned, () => replacement);
    }
    return json;
  }
}
