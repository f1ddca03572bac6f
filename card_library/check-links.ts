/** Checks that a card's links are well-formed, and lead to cards of the right types. */
import { Card, classOf, displayNameOf, stateOf } from "./card.ts";
import { CardError } from "./errors.ts";
import type { Field } from "./fields.ts";
import { fieldAt } from "./field-at.ts";
import { type NumberedLink, numberedLinks } from "./nested.ts";
import { UnavailableCard } from "./store.ts";
import type { CardClass } from "./types.ts";
import { resolveCardURL } from "./url.ts";
import type { Warning } from "./warnings.ts";

/** The known keys of a link. The target of the link is in `links.self`. */
const LINK = ["links", "meta"];

/**
 * Throws a CardError for the first malformed link. A link to a missing card, or to a card of a
 * wrong type, causes only a warning. Otherwise an author who deletes or changes a card could break
 * other authors' cards that link to it.
 */
export function checkLinks(card: Card): Warning[] {
  const { url, relationships } = stateOf(card);
  const warnings: Warning[] = [];
  const numbered = numberedLinks(relationships);
  for (const [key, value] of Object.entries(relationships)) {
    if (value === null) continue;
    const field = fieldAt(classOf(card), key);
    if (!field) continue;
    const links: unknown[] = Array.isArray(value) ? value : [value];
    checkCount(url, key, field, value, numbered.get(key));
    for (const link of links) {
      const target = hrefOf(url, key, link, warnings);
      if (target !== null) warnings.push(...checkTarget(card, key, field, target));
    }
  }
  for (const [name, links] of numbered) {
    const gap = links.findIndex(({ place }, index) => place !== index);
    if (gap < 0 || !fieldAt(classOf(card), name)) continue;
    const message = `${name}.${gap} is missing; ${name}.${links[gap].place} is used in its place`;
    warnings.push({ key: `${name}.${links[gap].place}`, message });
  }
  return warnings;
}

function checkCount(
  card: string,
  key: string,
  field: Field,
  value: unknown,
  numbered: NumberedLink[] | undefined,
): void {
  if (numbered !== undefined) {
    const other = `${key}.${numbered[0].place}`;
    throw new CardError(422, card, other, `${other} is ignored: ${key} has the whole list`);
  }
  if (!Array.isArray(value)) return;
  if (/\.\d+$/.test(key) || field.kind === "linksTo" && value.length > 1) {
    throw new CardError(422, card, key, `${key} should be one link, but it is a list`);
  }
}

/**
 * The URL of the linked card; null if the link is empty, or if its path is no URL. Adds warnings to
 * `warnings`.
 */
function hrefOf(card: string, key: string, link: unknown, warnings: Warning[]): string | null {
  const { links } = (link ?? {}) as { links?: unknown };
  const { self } = (links ?? {}) as { self?: unknown };
  if (self !== null && typeof self !== "string") {
    const message =
      `${key} should be {"links": {"self": "./a-card"}}, or null in place of the path`;
    throw new CardError(422, card, key, message);
  }
  for (const other of Object.keys(link as object)) {
    if (LINK.includes(other)) continue;
    const message = `${key}.${other} is ignored: only links.self names a card`;
    warnings.push({ key: `${key}.${other}`, message });
  }
  if (self === null) return null;
  const target = resolveCardURL(self, card);
  if (target !== null) return target;
  warnings.push({ key, message: `${key} links to ${JSON.stringify(self)}, which is no URL` });
  return null;
}

function checkTarget(card: Card, key: string, field: Field, target: string): Warning[] {
  const linked = stateOf(card).store.get(target);
  if (linked === null) {
    return [{ key, message: `${key} links to ${target}, where there is no card` }];
  }
  const type = field.target?.() as CardClass | undefined;
  if (linked instanceof UnavailableCard || !type || isOf(linked, type)) return [];
  const [is, expected] = [displayNameOf(classOf(linked)), displayNameOf(type)];
  return [{ key, message: `${key} links to ${target}, which is of type ${is}, not ${expected}` }];
}

/**
 * Whether a card's class, or an ancestor of that class, is `type` or has the same name as `type`.
 * Classes with the same name count as the same type, because a published realm has copies of its
 * source realm's classes. The card may be of the copied class although the field declares the
 * original class, or the other way round.
 */
function isOf(card: Card, type: CardClass): boolean {
  for (let here = classOf(card); here !== Card; here = Object.getPrototypeOf(here)) {
    if (here === type || here.name === type.name) return true;
  }
  return type === Card;
}
