/** Makes definitions. A definition describes a card type that a module exports. */
import { allFields, Card, displayNameOf, isCardClass } from "./card.ts";
import type { Field, FieldKind } from "./fields.ts";
import type { CardClass, CodeRef } from "./types.ts";

export interface FieldDefinition {
  kind: FieldKind;
  /** The type of the field's plain values, or the card class that the field contains or links to. */
  type: string | CodeRef;
  computed: boolean;
  label: string | null;
  description: string | null;
}

export interface Definition {
  codeRef: CodeRef;
  displayName: string;
  description: string | null;
  fields: Record<string, FieldDefinition>;
  /** The exported ancestors of the class, nearest first, ending with `Card` itself. */
  adoptionChain: CodeRef[];
}

/** Finds the module that exports a class, and the name of the export. */
export class CodeRefs {
  readonly #refs = new Map<CardClass, CodeRef>();

  /**
   * Registers the card classes that a module exports. If several modules export a class, the class
   * belongs to the module that was registered first.
   */
  register(module: string, exports: Record<string, unknown>): void {
    for (const [name, value] of Object.entries(exports)) {
      if (isCardClass(value) && !this.#refs.has(value)) this.#refs.set(value, { module, name });
    }
  }

  /** The reference to a class, or to the nearest exported ancestor if no module exports the class. */
  of(type: CardClass): CodeRef {
    for (let here = type; here !== Card; here = Object.getPrototypeOf(here)) {
      const ref = this.#refs.get(here);
      if (ref) return ref;
    }
    return { module: "@realm/base", name: "Card" };
  }

  /** References to the exported ancestors of a class, nearest first, ending with `Card` itself. */
  chain(type: CardClass): CodeRef[] {
    const chain: CodeRef[] = [];
    for (let here = type; here !== Card;) {
      here = Object.getPrototypeOf(here);
      if (here === Card || this.#refs.has(here)) chain.push(this.of(here));
    }
    return chain;
  }
}

/** The definitions of the card classes among a module's exports, by the name of the export. */
export function describeModule(
  exports: Record<string, unknown>,
  refs: CodeRefs,
): Record<string, Definition> {
  const definitions: Record<string, Definition> = {};
  for (const [name, type] of Object.entries(exports)) {
    if (!isCardClass(type)) continue;
    definitions[name] = {
      codeRef: refs.of(type),
      displayName: displayNameOf(type),
      description: Object.hasOwn(type, "description") ? type.description ?? null : null,
      fields: Object.fromEntries(
        Object.entries(allFields(type)).map(([key, field]) => [key, describeField(field, refs)]),
      ),
      adoptionChain: refs.chain(type),
    };
  }
  return definitions;
}

function describeField(field: Field, refs: CodeRefs): FieldDefinition {
  const target = field.target?.();
  return {
    kind: field.kind,
    type: field.type ?? (isCardClass(target) ? refs.of(target) : refs.of(Card)),
    computed: field.computed,
    label: field.options.label ?? null,
    description: field.options.description ?? null,
  };
}
