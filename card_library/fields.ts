/**
 * The functions that make the fields of a card type.
 *
 * A field reads its value from a card's document, or computes it. If a value in the document has
 * the wrong type, the field throws an error that names the field.
 */
import { WrongValue } from "./errors.ts";
import { type AnyClass, contained, linked, ownValue } from "./nested.ts";
import type { Card, CardState } from "./card.ts";
import type { AnyCard } from "./types.ts";
import { resolveURL } from "./url.ts";

export type FieldKind = "contains" | "containsMany" | "linksTo" | "linksToMany";
export type ValueType = "string" | "number" | "boolean" | "date" | "markdown" | "image";

export interface FieldOptions<T = unknown> {
  /** The value if the document has none. */
  default?: T;
  /** The name that people see for the field, in place of the name in the code. */
  label?: string;
  description?: string;
}

/** One field of a card type. `T` is the type of its value. */
export interface Field<T = unknown> {
  readonly kind: FieldKind;
  /** The type of plain values; null if the values are cards. `target` returns the cards' class. */
  readonly type: ValueType | null;
  readonly target?: () => unknown;
  readonly computed: boolean;
  readonly options: FieldOptions;
  read(card: Card, state: CardState, name: string): T;
}

/**
 * A field with one plain value. `decode` checks a value from the document and converts it for
 * templates, for example to a `Date`. `containsMany(field)` calls `field.decode` for each value of
 * a list.
 */
export interface ValueField<T, Empty = T> extends Field<T | Empty> {
  readonly type: ValueType;
  readonly target?: undefined;
  decode(value: unknown, where: string, state: CardState): T;
}

/** A field with a card, or with a list of cards. `C` is the class of the cards. */
export interface CardField<K extends FieldKind, C> extends Field {
  readonly kind: K;
  readonly target: () => C;
}

export function string(options: FieldOptions<string> = {}): ValueField<string> {
  return valueField("string", options, "", text);
}

export function markdown(options: FieldOptions<string> = {}): ValueField<string> {
  return valueField("markdown", options, "", text);
}

export function number(options: FieldOptions<number> = {}): ValueField<number, null> {
  return valueField("number", options, null, (value, where) => {
    if (typeof value === "number") return value;
    throw expected(where, "a number", value);
  });
}

export function boolean(options: FieldOptions<boolean> = {}): ValueField<boolean> {
  return valueField("boolean", options, false, (value, where) => {
    if (typeof value === "boolean") return value;
    throw expected(where, "true or false", value);
  });
}

/** A day (`2026-03-01`) or a time (`2026-03-01T09:30:00Z`). UTC unless the time has a time zone. */
export function date(options: FieldOptions<Date | string> = {}): ValueField<Date, null> {
  return valueField<Date, null>("date", options, null, (value, where) => {
    if (value instanceof Date) return value;
    const spelling = typeof value === "string" && ISO_DATE.exec(value);
    const moment = new Date(spelling && spelling[1] && !spelling[2] ? `${value}Z` : String(value));
    if (spelling && isDay(String(value)) && !Number.isNaN(moment.getTime())) return moment;
    throw expected(where, "a date such as 2026-03-01 or 2026-03-01T09:30:00Z", value);
  });
}

/**
 * The URL of an image. In a document, the URL may be relative to the card's URL. Templates get an
 * absolute URL.
 */
export function image(options: FieldOptions<string> = {}): ValueField<string, null> {
  return valueField<string, null>("image", options, null, (value, where, state) => {
    const url = typeof value === "string" ? resolveURL(value, state.url) : null;
    if (url) return state.store.address(url);
    throw expected(where, "the URL of an image", value);
  });
}

/** A card inside this card's own document. */
export function contains<C>(target: C | (() => C), options: FieldOptions = {}) {
  return cardField<"contains", C>("contains", target, options, (state, name) => {
    const value = ownValue(state.attributes, name) ?? options.default;
    return isAbsent(value) ? null : contained(thunk(target)(), object(value, name), state, name);
  });
}

/**
 * A list of plain values, as in `containsMany(string())`, or a list of cards inside this card's own
 * document.
 */
export function containsMany<T>(
  item: ValueField<T, unknown>,
  options?: FieldOptions<T[]>,
): Field<T[]>;
export function containsMany<C>(
  item: C | (() => C),
  options?: FieldOptions,
): CardField<"containsMany", C>;
export function containsMany(item: unknown, options: FieldOptions = {}): Field {
  if (isValueField(item)) {
    return {
      kind: "containsMany",
      type: item.type,
      computed: false,
      options,
      read: (_card, state, name) =>
        list(ownValue(state.attributes, name) ?? options.default, name)
          .map((value, index) => item.decode(value, `${name}[${index}]`, state)),
    };
  }
  return cardField(
    "containsMany",
    item,
    options,
    (state, name) =>
      list(ownValue(state.attributes, name) ?? options.default, name).map((value, index) =>
        contained(thunk(item)(), object(value, `${name}[${index}]`), state, `${name}.${index}`)
      ),
  );
}

/** A link to another card. The value is null if the link or the linked card is missing. */
export function linksTo<C>(target: C | (() => C), options: FieldOptions = {}) {
  return cardField<"linksTo", C>(
    "linksTo",
    target,
    options,
    (state, name) => linked(state, name)[0] ?? null,
  );
}

/** Links to other cards, in order. Links to missing cards are left out. */
export function linksToMany<C>(target: C | (() => C), options: FieldOptions = {}) {
  return cardField<"linksToMany", C>("linksToMany", target, options, linked);
}

/**
 * A value computed from the card's other fields. `compute` must not return a promise. Its parameter
 * can have a type, as in `computed((card: { title: string }) => ...)`. With such a type, the type
 * check finds names in `compute` that are misspelt.
 */
export function computed<T, C = AnyCard>(
  compute: (card: C) => T,
  options: FieldOptions<never> & { type?: ValueType } = {},
): Field<T> {
  return {
    kind: "contains",
    type: options.type ?? "string",
    computed: true,
    options,
    read(card, _state, name) {
      const value = compute(card as C);
      if (value instanceof Promise) {
        throw new TypeError(`${name} is computed by an async function; it must be an ordinary one`);
      }
      return value;
    },
  };
}

const ISO_DATE = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/;

/** Whether the day of a date exists. JavaScript would accept 30 February as a day in March. */
function isDay(spelling: string): boolean {
  const [year, month, day] = spelling.slice(0, 10).split("-").map(Number);
  // `Date.UTC` counts months from 0, so `month` is the next month there. Day 0 of the next month is
  // the last day of this month. `Date.UTC` reads years below 100 as 19xx, so 400 is added to the
  // year. The calendar repeats every 400 years, so the month has the same length.
  return month >= 1 && month <= 12 && day >= 1 &&
    day <= new Date(Date.UTC(year + 400, month, 0)).getUTCDate();
}

function valueField<T, Empty = T>(
  type: ValueType,
  options: FieldOptions,
  empty: Empty,
  decode: ValueField<T, Empty>["decode"],
): ValueField<T, Empty> {
  return {
    kind: "contains",
    type,
    computed: false,
    options,
    decode,
    read(_card, state, name) {
      const value = ownValue(state.attributes, name) ?? options.default;
      return isAbsent(value) ? empty : decode(value, name, state);
    },
  };
}

function cardField<K extends FieldKind, C>(
  kind: K,
  target: C | (() => C),
  options: FieldOptions,
  read: (state: CardState, name: string) => unknown,
): CardField<K, C> {
  return {
    kind,
    type: null,
    target: thunk(target),
    computed: false,
    options,
    read: (_card, state, name) => read(state, name),
  };
}

/**
 * Returns a function that returns a class. `target` is the class itself, or an arrow function that
 * returns the class. If two modules import each other, the first one runs before the second one has
 * defined its classes. So the first one must use an arrow function.
 */
function thunk<C>(target: C | (() => C)): () => C {
  // A class has a `prototype`, and an arrow function has none.
  const isFunction = typeof target === "function" && !(target as unknown as AnyClass).prototype;
  return isFunction ? target as () => C : () => target as C;
}

function isValueField(value: unknown): value is ValueField<unknown> {
  return typeof value === "object" && value !== null && "decode" in value;
}

function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

function text(value: unknown, where: string): string {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  throw expected(where, "text", value);
}

function list(value: unknown, where: string): unknown[] {
  if (isAbsent(value)) return [];
  if (Array.isArray(value)) return value;
  throw expected(where, "a list", value);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw expected(where, "an object", value);
}

function expected(where: string, what: string, value: unknown): WrongValue {
  return new WrongValue(where, what, value);
}
