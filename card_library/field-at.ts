/** Finds the field for a key of a card's document. The field may belong to a contained card. */
import { allFields, isCardClass } from "./card.ts";
import type { Field } from "./fields.ts";
import { ownValue } from "./nested.ts";
import type { CardClass } from "./types.ts";

/** The field for a key such as `author`, `friends.0`, `address.country` or `stops.2.place`. */
export function fieldAt(type: CardClass, key: string): Field | undefined {
  const [name, ...rest] = key.split(".");
  const field = ownValue(allFields(type), name);
  if (!field || field.kind === "linksTo" || field.kind === "linksToMany") return field;
  const inner = field.kind === "containsMany" ? rest.slice(1) : rest;
  const target = field.target?.();
  return isCardClass(target) && inner.length > 0 ? fieldAt(target, inner.join(".")) : field;
}
