/**
 * The TypeScript types of realms, documents and templates. In a template, the type of `card` has
 * the fields of the card's class.
 *
 * This module contains only types, so nothing of it exists at run time.
 */
import type { ComponentChildren } from "preact";
import type { Card } from "./card.ts";
import type { Field } from "./fields.ts";

/** The formats in which a card is shown. */
export type Format = "isolated" | "embedded" | "fitted" | "atom" | "head";

/** What templates know about the realm that is being rendered. */
export interface RealmInfo {
  /** The public URL of the realm. It ends with `/`. */
  url: string;
  name: string;
  /**
   * The public URL of the bootstrap realm, which has the files of this library, including the
   * default stylesheets. The URL ends with `/`.
   */
  baseURL: string;
  iconURL?: string | null;
  /** The language of the realm's pages, such as `de` or `pt-BR`. */
  lang?: string;
  /** The absolute URL of the realm's own stylesheet, which replaces the default stylesheet. */
  stylesheet?: string | null;
}

/** Identifies an exported card class by the module's URL and the export's name. */
export interface CodeRef {
  module: string;
  name: string;
}

/** One link of a JSON:API document. */
export interface Relationship {
  links?: { self?: string | null } | null;
}

/** The JSON:API document that stores a card. */
export interface CardDocument {
  data: {
    type?: string;
    attributes?: Record<string, unknown> | null;
    relationships?: Record<string, Relationship | Relationship[] | null> | null;
    meta?: { adoptsFrom?: CodeRef } | null;
  };
}

/** A card of an unknown class. */
// deno-lint-ignore no-explicit-any -- `card.anything` must be usable where the class isn't known
export type AnyCard = Card & { readonly [field: string]: any };

/** The class of a card. */
export type CardClass = typeof Card;

/** The type of the value that a field holds. */
export type ValueOf<F> = F extends { kind: "linksTo"; target: () => infer C } ? CardOf<C> | null
  : F extends { kind: "linksToMany"; target: () => infer C } ? CardOf<C>[]
  : F extends { kind: "contains"; target: () => infer C } ? CardOf<C> | null
  : F extends { kind: "containsMany"; target: () => infer C } ? CardOf<C>[]
  : F extends Field<infer T> ? T
  : never;

/** The field values of a card class: `FieldsOf<typeof Post>`. */
export type FieldsOf<C> = C extends { fields: infer F } ? {
    readonly [K in keyof F]: ValueOf<F[K]>;
  }
  : unknown;

/** An instance of a card class with its fields: `CardOf<typeof Post>`. */
export type CardOf<C> =
  & (C extends abstract new (...args: never[]) => infer I ? I : Card)
  & FieldsOf<C>;

/** An unknown card class. */
export interface AnyCardClass {
  new (): AnyCard;
}

/** The props of a template, such as `TemplateProps<typeof Post>`. The class is optional. */
export interface TemplateProps<C = AnyCardClass> {
  card: CardOf<C>;
  realm: RealmInfo;
  format: Format;
}

/**
 * The type of a template, as in
 * `static isolated: Template<typeof Post> = ({ card }) => <h1>{card.title}</h1>`.
 *
 * `Template` is declared as a method, so that a subclass can narrow the type of `card`. TypeScript
 * allows a subclass to narrow the parameters of a method, but not those of a function type.
 */
export type Template<C = AnyCardClass> = {
  template(props: TemplateProps<C>): ComponentChildren;
}["template"];

/** A template of an unknown class. */
// deno-lint-ignore no-explicit-any -- the type of the props depends on the template's class
export type AnyTemplate = (props: any) => ComponentChildren;
