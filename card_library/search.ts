/**
 * Makes search documents, which hold the searchable data of cards.
 *
 * A realm's index has the search documents of its cards. A search document holds the values of a
 * card's fields, the card's type and the type's ancestors (`_types`), the names and types of the
 * fields (`_fields`), and the card's text (`_text`). So a search loads no modules: the index says
 * which types and fields exist.
 */
import { allFields, Card, classOf, stateOf, titleOf } from "./card.ts";
import type { Field } from "./fields.ts";
import { linkedURLs } from "./nested.ts";
import type { CardClass, CodeRef, RealmInfo } from "./types.ts";

/**
 * For each field, a search document has the values of at most this many linked cards. It has only
 * the URLs of further linked cards.
 */
const LINKED_CARDS = 100;
/**
 * The maximum length of `_text`. A longer text is cut, because Postgres can't index very long
 * texts. Unit: characters.
 */
const TEXT = 100_000;
/**
 * How deep `_fields` describes the fields of contained cards. Without this limit, the description
 * of a type that contains itself would be endless.
 */
const DEPTH = 3;

/**
 * The type of a field's values, as `_fields` describes it:
 *
 * - for a plain value, the name of its type, such as `string` or `date`;
 * - for a computed value, `any`;
 * - for a card, an object with the shape of each field, and with `id` if the card is linked;
 * - for a list, an array with the shape of the items.
 */
type Shape = string | { [field: string]: Shape } | [Shape];

/**
 * The search document of a card. `type` is the card's type. `types` contains this type and its
 * ancestors.
 */
export function searchDocument(
  card: Card,
  type: CodeRef,
  realm: RealmInfo,
  types: CodeRef[],
): Record<string, unknown> {
  const values = fieldValues(card, true);
  return {
    ...values,
    id: stateOf(card).url,
    _type: type,
    _types: [...new Set(types.map(typeKey))],
    _title: titleOf(card, realm),
    _fields: fieldsOf(classOf(card)),
    _text: textOf(card).join("\n").slice(0, TEXT),
  };
}

/** A type as one string: the URL of its module without extension, `/`, and the type's name. */
export function typeKey({ module, name }: CodeRef): string {
  return `${module.replace(/\.(tsx|ts|jsx|js)$/, "")}/${name}`;
}

function isLink(field: Field): boolean {
  return field.kind === "linksTo" || field.kind === "linksToMany";
}

function fieldValues(card: Card, links: boolean): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(allFields(classOf(card)))
      .map(([name, field]) => [name, fieldValueOf(card, name, field, links)]),
  );
}

function fieldValueOf(card: Card, name: string, field: Field, links: boolean): unknown {
  if (!isLink(field)) return plain((card as unknown as Record<string, unknown>)[name], 0, links);
  // The URLs come from the card's document, not from the linked cards. So searches also find links
  // to missing cards.
  const { store } = stateOf(card);
  const found = linkedURLs(stateOf(card), name).map((id, place) => {
    const linked = links && place < LINKED_CARDS ? store.get(id) : null;
    return linked ? { ...linkedValues(linked), id } : { id };
  });
  return field.kind === "linksTo" ? found[0] ?? null : found;
}

/**
 * The searchable values of a linked card, without its Markdown. If the linked card has links
 * itself, only the URLs of these links are included.
 */
function linkedValues(card: Card): Record<string, unknown> {
  const values: [string, unknown][] = [];
  for (const [name, field] of Object.entries(allFields(classOf(card)))) {
    if (field.type === "markdown") continue;
    try {
      values.push([name, fieldValueOf(card, name, field, false)]);
    } catch {
      // Ignores the error. The render of the linked card itself reports it.
      values.push([name, null]);
    }
  }
  return Object.fromEntries(values);
}

/** A value as JSON. A value that is nested too deeply or has no form in JSON becomes null. */
function plain(value: unknown, depth: number, links: boolean): unknown {
  if (value === null || value === undefined || depth > 6) return null;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Card) {
    const { path, url } = stateOf(value);
    return path === "" ? { id: url } : fieldValues(value, links);
  }
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1, links));
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : null;
    case "object":
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, plain(item, depth + 1, links)]),
      );
    default:
      return null;
  }
}

const shapes = new WeakMap<CardClass, Shape>();

function fieldsOf(type: CardClass): Shape {
  let shape = shapes.get(type);
  if (!shape) shapes.set(type, shape = shapeOf(type, DEPTH, true));
  return shape;
}

function shapeOf(type: CardClass, depth: number, links: boolean): { [field: string]: Shape } {
  const shape: [string, Shape][] = [];
  for (const [name, field] of Object.entries(allFields(type))) {
    if (!links && field.type === "markdown") continue;
    const one = fieldShape(field, depth, links);
    const many = field.kind === "containsMany" || field.kind === "linksToMany";
    shape.push([name, many ? [one] : one]);
  }
  return Object.fromEntries(shape);
}

function fieldShape(field: Field, depth: number, links: boolean): Shape {
  if (field.computed) return "any";
  if (field.type) return field.type;
  const target = field.target?.() as CardClass;
  if (isLink(field)) return { ...(links ? shapeOf(target, DEPTH, false) : {}), id: "id" };
  return depth > 0 ? shapeOf(target, depth - 1, links) : {};
}

/** The texts in the fields of a card and of the cards that it contains. */
function textOf(card: Card): string[] {
  const pieces: string[] = [];
  for (const [name, field] of Object.entries(allFields(classOf(card)))) {
    if (isLink(field) || field.type === "image") continue;
    collect((card as unknown as Record<string, unknown>)[name], pieces);
  }
  return pieces;
}

function collect(value: unknown, pieces: string[]): void {
  if (typeof value === "string") pieces.push(value);
  else if (Array.isArray(value)) value.forEach((item) => collect(item, pieces));
  else if (value instanceof Card && stateOf(value).path !== "") pieces.push(...textOf(value));
}
