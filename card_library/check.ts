/**
 * Checks a card's document against the fields of the card's type. A name that is no field of the type
 * is an error, so that authors notice misspellings.
 */
import { allFields, type Card, classOf, displayNameOf, isCardClass, stateOf } from "./card.ts";
import { checkLinks } from "./check-links.ts";
import { CardError } from "./errors.ts";
import type { FieldKind } from "./fields.ts";
import type { CardClass, CardDocument } from "./types.ts";
import type { Warning } from "./warnings.ts";

/** The known keys of a card's document (`TOP`) and of the object `data` in it (`DATA`). */
const TOP = ["data", "included", "links", "meta", "jsonapi", "$schema"];
const DATA = ["type", "id", "lid", "attributes", "relationships", "meta", "links"];

/**
 * Throws a CardError for the first unknown key or malformed link in a card's document. Returns warnings
 * for faults that don't prevent rendering. Doesn't check the values of fields, because a field checks
 * its value when it is read.
 */
export function checkDocument(card: Card, document: CardDocument): Warning[] {
  const { url, attributes, relationships } = stateOf(card);
  checkKeys(document, TOP, "", url);
  checkKeys(document.data, DATA, "data.", url);
  for (const key of ["attributes", "relationships"] as const) {
    const value: unknown = document.data[key] ?? {};
    if (typeof value === "object" && !Array.isArray(value)) continue;
    throw new CardError(422, url, key, `${key} should be an object`);
  }
  checkAttributes(classOf(card), attributes, "", url);
  for (const [key, value] of Object.entries(relationships)) {
    if (value !== null) checkLink(classOf(card), key.split("."), "", url);
  }
  const { type } = document.data;
  const warnings = type === undefined || type === "card" ? [] : [
    { key: "type", message: `data.type is ${JSON.stringify(type)}; expected "card"` },
  ];
  return [...warnings, ...checkLinks(card)];
}

function checkKeys(value: object, known: string[], path: string, card: string): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const close = known.find((other) => isClose(key.toLowerCase(), other.toLowerCase()));
    const hint = close ? `did you mean ${close}?` : "a card's fields are under attributes";
    const message = `${path}${key} is not a known key; ${hint}`;
    throw new CardError(422, card, `${path}${key}`, message);
  }
}

function checkAttributes(
  type: CardClass,
  attributes: Record<string, unknown>,
  path: string,
  card: string,
): void {
  for (const [name, value] of Object.entries(attributes)) {
    // An author may remove a value by writing null in its place. So null is allowed under any name,
    // even if the type no longer has such a field.
    if (value === null) continue;
    const field = fieldOf(type, name, path, card);
    if (field.kind === "linksTo" || field.kind === "linksToMany") {
      const message = `${path}${name} of ${displayNameOf(type)} is a link: it belongs under ` +
        "relationships, not attributes";
      throw new CardError(422, card, path + name, message);
    }
    const target = field.target?.();
    if (!isCardClass(target)) continue;
    const items = Array.isArray(value) ? value : [value];
    for (const [index, item] of items.entries()) {
      if (typeof item !== "object" || item === null) continue;
      const place = Array.isArray(value) ? `${path}${name}.${index}.` : `${path}${name}.`;
      checkAttributes(target, item as Record<string, unknown>, place, card);
    }
  }
}

/**
 * Checks that the key of a link leads to a field for links. Examples of keys are `author` and
 * `friends.0`, and for links of contained cards `address.country` and `stops.2.place`. `path` is the
 * part of the key that leads to the card of the type `type`. `keys` are the parts after `path`.
 */
function checkLink(type: CardClass, keys: string[], path: string, card: string): void {
  const [name, ...rest] = keys;
  const field = fieldOf(type, name, path, card);
  if (field.kind === "linksTo" || field.kind === "linksToMany") {
    return checkPlace(field.kind, `${path}${name}`, rest, card);
  }
  const target = field.target?.();
  const inner = field.kind === "containsMany" ? rest.slice(1) : rest;
  if (isCardClass(target) && inner.length > 0) {
    const place = [name, ...rest.slice(0, rest.length - inner.length)].join(".");
    return checkLink(target, inner, `${path}${place}.`, card);
  }
  const message = `${path}${name} of ${displayNameOf(type)} isn't a link: it belongs under ` +
    "attributes, not relationships";
  throw new CardError(422, card, path + name, message);
}

/**
 * Checks what follows the field's name in the key of a link. Nothing may follow, or one number, as in
 * `friends.0`. If the field holds only one link, the number must be 0.
 */
function checkPlace(kind: FieldKind, name: string, rest: string[], card: string): void {
  const key = [name, ...rest].join(".");
  if (rest.length === 0 || rest.length === 1 && /^(0|[1-9]\d*)$/.test(rest[0])) {
    if (kind === "linksToMany" || rest.length === 0 || rest[0] === "0") return;
    const message = `${key} is a second link, but ${name} holds only one`;
    throw new CardError(422, card, key, message);
  }
  const expected = kind === "linksToMany" ? `${name}.0, ${name}.1, and so on` : name;
  throw new CardError(422, card, key, `${key} is not the name of a link; expected ${expected}`);
}

function fieldOf(type: CardClass, name: string, path: string, card: string) {
  const fields = allFields(type);
  if (Object.hasOwn(fields, name)) return fields[name];
  const names = Object.keys(fields);
  const close = names.find((other) => isClose(name.toLowerCase(), other.toLowerCase()));
  const hint = close
    ? `did you mean ${close}?`
    : names.length > 0
    ? `it has ${names.join(", ")}`
    : "it has none";
  const message = `${displayNameOf(type)} has no field ${JSON.stringify(path + name)}; ${hint}`;
  throw new CardError(422, card, path + name, message);
}

/**
 * Whether one name may be a misspelling of the other: their edit distance is at most 2. Two names of
 * one or two characters are never close.
 */
function isClose(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 2 || Math.max(a.length, b.length) < 3) return false;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length] <= 2;
}
