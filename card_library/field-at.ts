/** Finds the field that a key of a card's document belongs to, also in contained cards. */
import { allFields, isCardClass } from "./card.ts";
import type { Field } from "./fields.ts";
import { ownValue } from "./nested.ts";
import type { CardClass } from "./types.ts";

/** Finds the field of a key such as `author`, `friends.0`, `address.country` or `stops.2.place`. */
export function fieldAt(type: CardClass, key: string): Field | undefined {
  const [name, ...rest] = key.split(".");
  const field = ownValue(allFields(type), name);
  if (!field || field.kind === "linksTo" || field.kind === "linksToMany") return field;
  const inner = field.kind === "containsMany" ? rest.slice(1) : rest;
  const target = field.target?.();
  return isCardClass(target) && inner.length > 0 ? fieldAt(target, inner.join(".")) : field;
}
