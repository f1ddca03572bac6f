/** What a prerenderer calls: a card's HTML in a format, and its search document. */
import { options } from "preact";
import { renderToString } from "preact-render-to-string";
import { allFields, Card, classOf, stateOf, titleOf } from "./card.ts";
import { defaultTemplates } from "./defaults.tsx";
import { nested } from "./embed.tsx";
import type { Field } from "./fields.ts";
import { linkedURLs } from "./nested.ts";
import { Styles } from "./styles.ts";
import type { CodeRef, Format, RealmInfo } from "./types.ts";

export const FORMATS: readonly Format[] = ["isolated", "embedded", "fitted", "atom", "head"];

// `<Embed>` catches what the template of a linked card throws; preact does this only when asked.
(options as { errorBoundaries?: boolean }).errorBoundaries = true;

/**
 * The HTML of a card in one format; `styles` gathers what it needs to look right. Throws what its
 * templates and fields throw.
 */
export function renderCard(
  card: Card,
  format: Format,
  realm: RealmInfo,
  styles = new Styles(),
): string {
  return renderToString(
    nested({ card, format, realm, around: null, depth: 0, defaults: defaultTemplates, styles }),
  );
}

/** Everything that can be searched for in a card: its field values, with links as `{ id }`. */
export function searchDocument(
  card: Card,
  type: CodeRef,
  realm: RealmInfo,
): Record<string, unknown> {
  return { ...fieldValues(card), _type: type, _title: titleOf(card, realm) };
}

function fieldValues(card: Card): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(allFields(classOf(card)))) {
    values[name] = fieldValueOf(card, name, field);
  }
  return values;
}

/** Links come from the document, not from the linked card: one that can't be found is still a link. */
function fieldValueOf(card: Card, name: string, field: Field): unknown {
  if (field.kind === "linksTo" || field.kind === "linksToMany") {
    const ids = linkedURLs(stateOf(card), name).map((id) => ({ id }));
    return field.kind === "linksTo" ? ids[0] ?? null : ids;
  }
  return plain((card as unknown as Record<string, unknown>)[name], 0);
}

/** A value as JSON; what JSON can't say is null, and what is nested too deep for a search is left out. */
function plain(value: unknown, depth: number): unknown {
  if (value === null || value === undefined || depth > 6) return null;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Card) {
    const { path, url } = stateOf(value);
    return path === "" ? { id: url } : fieldValues(value);
  }
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1));
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : null;
    case "object":
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, plain(item, depth + 1)]),
      );
    default:
      return null;
  }
}
