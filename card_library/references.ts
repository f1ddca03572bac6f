/** Lists the URLs of a card's images, and of the links and images in the card's Markdown. */
import { addressOf, allFields, Card, classOf, stateOf } from "./card.ts";
import { markdownReferences } from "./markdown.tsx";
import type { Reference } from "./warnings.ts";

/** The maximum number of references per card. */
const MAX_REFERENCES = 1_000;

export function referencesOf(card: Card): Reference[] {
  const found: Reference[] = [];
  collect(card, found);
  return found.slice(0, MAX_REFERENCES);
}

function collect(card: Card, found: Reference[]): void {
  const { path, url } = stateOf(card);
  for (const [name, field] of Object.entries(allFields(classOf(card)))) {
    if (field.kind === "linksTo" || field.kind === "linksToMany" || field.computed) continue;
    const value = (card as unknown as Record<string, unknown>)[name];
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each instanceof Card) {
        collect(each, found);
      } else if (typeof each === "string" && each !== "") {
        const key = path + name;
        if (field.type === "image") found.push({ key, url: each, kind: "image" });
        if (field.type === "markdown") {
          const bases = { link_open: addressOf(card), image: url };
          for (const named of markdownReferences(each, bases)) found.push({ key, ...named });
        }
      }
    }
  }
}
