/** Makes the cards that a card's document contains, and finds the cards that it links to. */
import { type Card, type CardState, createCard, isCardClass } from "./card.ts";
import type { Relationship } from "./types.ts";
import { resolveCardURL } from "./url.ts";

// deno-lint-ignore no-explicit-any -- used only to check whether a value has a prototype
export type AnyClass = abstract new (...args: any[]) => unknown;

/**
 * Makes the card that `owner` contains at `place`. The place is a field, such as `address`, or an
 * item of a list, such as `authors.0`. Both cards are in the same document.
 */
export function contained(
  type: unknown,
  attributes: Record<string, unknown>,
  owner: CardState,
  place: string,
): Card {
  if (!isCardClass(type)) {
    throw new TypeError(`The field ${place} must be declared with a class that extends Card`);
  }
  return createCard(type, { ...owner, attributes, path: `${owner.path}${place}.` });
}

/** The linked cards of one field. Links to missing cards are left out. */
export function linked(state: CardState, name: string): Card[] {
  return linkedURLs(state, name).map((url) => state.store.get(url)).filter((card) => card !== null);
}

/**
 * The URLs of the cards that the field `name` links to. In the document, the links of a field
 * `films` are under the key `films`, as one link or a list, or under `films.0`, `films.1`, ...
 */
export function linkedURLs(state: CardState, name: string): string[] {
  const key = state.path + name;
  const entry = ownValue(state.relationships, key);
  if (entry) return targets([entry].flat(), state.url);
  const numbered = numberedLinks(state.relationships).get(key) ?? [];
  return targets(numbered.flatMap(({ link }) => link ?? []), state.url);
}

/** A link with a key such as `films.2`. `place` is the number at the end of the key. */
export interface NumberedLink {
  place: number;
  link: Relationship | Relationship[] | null;
}

const numbered = new WeakMap<CardState["relationships"], Map<string, NumberedLink[]>>();

/**
 * The links with keys such as `films.2`. The result maps each field's name, here `films`, to the
 * field's links in the order of their numbers.
 */
export function numberedLinks(
  relationships: CardState["relationships"],
): Map<string, NumberedLink[]> {
  let found = numbered.get(relationships);
  if (!found) {
    found = new Map();
    for (const [key, link] of Object.entries(relationships)) {
      const [, name, place] = /^(.+)\.(0|[1-9]\d*)$/.exec(key) ?? [];
      if (name === undefined) continue;
      const links = found.get(name) ?? [];
      links.push({ place: Number(place), link });
      found.set(name, links);
    }
    for (const links of found.values()) links.sort((a, b) => a.place - b.place);
    numbered.set(relationships, found);
  }
  return found;
}

/** The value of an object's own property. Ignores inherited properties, such as `constructor`. */
export function ownValue<T>(values: Record<string, T>, name: string): T | undefined {
  return Object.hasOwn(values, name) ? values[name] : undefined;
}

/** The URLs of all cards that a document links to. `url` is the URL of the document's card. */
export function allLinkedURLs(
  relationships: CardState["relationships"] | null | undefined,
  url: string,
): string[] {
  return Object.values(relationships ?? {}).flatMap((entry) => targets([entry ?? []].flat(), url));
}

function targets(links: Relationship[], base: string): string[] {
  return links
    .map((link) => link?.links?.self)
    .map((href) => typeof href === "string" ? resolveCardURL(href, base) : null)
    .filter((url) => url !== null);
}
