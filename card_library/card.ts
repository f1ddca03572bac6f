/**
 * Defines `Card`, the class that every card type extends, and functions that read cards.
 *
 * The library keeps its data about a card in maps, not in properties of the card. So a field may have
 * any name.
 */
import type { ComponentChildren } from "preact";
import { CardError, fieldError } from "./errors.ts";
import type { Field } from "./fields.ts";
import type { CardStore } from "./store.ts";
import type { AnyTemplate, CardClass, CardDocument, RealmInfo, TemplateProps } from "./types.ts";
import { lastSegment, pageURL } from "./url.ts";

/**
 * The base class of every card type. The static members of a type declare its name, fields,
 * templates and styles.
 */
export class Card {
  /** The type's name for readers. Without it, readers see the name of the class. */
  static displayName = "Card";
  static description?: string;
  /**
   * The fields by name. A card type also has the fields of its ancestors. But TypeScript knows these in
   * the type's templates only if the type repeats them: `static fields = { ...super.fields, ... }`.
   */
  static fields: Record<string, Field> = {};
  static isolated?: AnyTemplate;
  static embedded?: AnyTemplate;
  static fitted?: AnyTemplate;
  static atom?: AnyTemplate;
  static head?: AnyTemplate;
  /**
   * CSS for this type's templates. A page that shows cards of this type includes the CSS once. The
   * CSS applies only inside cards of this type. `:scope` matches the card itself.
   */
  static styles?: string;

  /**
   * Returns `template`, and tells TypeScript that the template's `card` has the fields of this class:
   * `static isolated = this.template(({ card }) => ...)`.
   */
  static template<C extends abstract new (...args: never[]) => unknown>(
    this: C,
    template: (props: TemplateProps<C>) => ComponentChildren,
  ): AnyTemplate {
    return template;
  }

  /**
   * The card's public URL, without `.json`. A card that is contained in another card's document has
   * the URL of that other card.
   */
  declare readonly id: string;
}

/** The data from which a card is made. */
export interface CardState {
  url: string;
  attributes: Record<string, unknown>;
  relationships: NonNullable<CardDocument["data"]["relationships"]>;
  /**
   * The place of a contained card in its document, for example `"addresses.0."`; `""` for the card to
   * which the document belongs.
   */
  path: string;
  store: CardStore;
}

const states = new WeakMap<Card, CardState>();
const classes = new WeakMap<Card, CardClass>();
const inherited = new WeakMap<CardClass, Record<string, Field>>();
const accessors = new WeakMap<CardClass, PropertyDescriptorMap>();

export function isCardClass(value: unknown): value is CardClass {
  return typeof value === "function" && (value === Card || value.prototype instanceof Card);
}

/** All fields of a class, the fields of its ancestors first. */
export function allFields(type: CardClass): Record<string, Field> {
  let fields = inherited.get(type);
  if (!fields) {
    const parent = type === Card ? {} : allFields(Object.getPrototypeOf(type));
    const own = Object.hasOwn(type, "fields") ? type.fields : {};
    if (![Object.prototype, null].includes(Object.getPrototypeOf(own))) {
      throw new TypeError(
        `The fields of ${type.name} set a prototype; a field named __proto__ must be written ` +
          '["__proto__"]: string()',
      );
    }
    fields = Object.freeze({ ...parent, ...own });
    inherited.set(type, fields);
  }
  return fields;
}

/** Makes a card. The value of a field is read from the document when the field is first accessed. */
export function createCard(type: CardClass, state: CardState): Card {
  const card = new type();
  states.set(card, state);
  classes.set(card, type);
  Object.defineProperties(card, accessorsOf(type));
  return card;
}

function accessorsOf(type: CardClass): PropertyDescriptorMap {
  let descriptors = accessors.get(type);
  if (!descriptors) {
    // This object has no prototype, so a field can have any name, even `__proto__`.
    descriptors = Object.create(null) as PropertyDescriptorMap;
    descriptors.id = { get: idOf, configurable: true };
    for (const [name, field] of Object.entries(allFields(type))) {
      descriptors[name] = {
        configurable: true,
        enumerable: true,
        get(this: Card) {
          const value = readField(this, field, name);
          Object.defineProperty(this, name, { value, configurable: true, enumerable: true });
          return value;
        },
      };
    }
    accessors.set(type, descriptors);
  }
  return descriptors;
}

/** Reads the value of a field. Throws a CardError that says which field of which card failed. */
function readField(card: Card, field: Field, name: string): unknown {
  const state = stateOf(card);
  try {
    return field.read(card, state, name);
  } catch (error) {
    if (error instanceof CardError && error.card === state.url) throw error;
    throw fieldError(state.url, state.path + name, displayNameOf(classOf(card)), error);
  }
}

function idOf(this: Card): string {
  return addressOf(this);
}

/** The public URL of a card, without `.json`. */
export function addressOf(card: Card): string {
  const { store, url } = stateOf(card);
  return store.address(url);
}

/** The public URL of a card's page. The page of a folder's `index` card has the folder's URL. */
export function pageOf(card: Card): string {
  return pageURL(addressOf(card));
}

export function stateOf(card: Card): CardState {
  const state = states.get(card);
  if (!state) throw new TypeError("This is not a card that was loaded from a document");
  return state;
}

export function classOf(card: Card): CardClass {
  return classes.get(card) ?? card.constructor as CardClass;
}

export function displayNameOf(type: CardClass): string {
  return Object.hasOwn(type, "displayName") && type.displayName ? type.displayName : type.name;
}

/** The value of the field `name`, or undefined if the card's type has no such field. */
export function fieldValue(card: Card, name: string): unknown {
  return Object.hasOwn(allFields(classOf(card)), name)
    ? (card as unknown as Record<string, unknown>)[name]
    : undefined;
}

/** The text of the first field in `names` that has a text; null if none has one. */
export function firstText(card: Card, names: readonly string[]): string | null {
  for (const name of names) {
    const value = fieldValue(card, name);
    if (typeof value === "string" && value.trim() !== "") return value.trim();
  }
  return null;
}

/**
 * The title of a card: the first text among its fields `title`, `name` and `displayName`. If these
 * fields have no text, the title of the realm's `index` card is the realm's name, and the title of
 * any other card is its file name without `.json`.
 */
export function titleOf(card: Card, realm?: RealmInfo): string {
  const title = firstText(card, ["title", "name", "displayName"]);
  if (title) return title;
  const { url } = stateOf(card);
  return realm && url === `${realm.url}index` ? realm.name : lastSegment(url);
}

/**
 * The description of a card: the first text among its fields `description`, `summary`, `subtitle` and
 * `excerpt`; null if these fields have no text.
 */
export function descriptionOf(card: Card): string | null {
  return firstText(card, ["description", "summary", "subtitle", "excerpt"]);
}

/** The absolute URL of the first image among a card's fields; null if the card has no image. */
export function imageOf(card: Card): string | null {
  const images = Object.entries(allFields(classOf(card)))
    .filter(([, field]) => field.type === "image" && field.kind === "contains");
  return firstText(card, images.map(([name]) => name));
}
