/** The default templates of all formats, for card types that have no template of their own. */
import type { ComponentChildren } from "preact";
import {
  allFields,
  Card,
  classOf,
  descriptionOf,
  displayNameOf,
  firstText,
  imageOf,
  stateOf,
  titleOf,
} from "./card.ts";
import { Embed, Link } from "./embed.tsx";
import type { Field } from "./fields.ts";
import { formatDate } from "./helpers.ts";
import { excerpt, Markdown } from "./markdown.tsx";
import type { AnyTemplate, Format, TemplateProps } from "./types.ts";
import { pageURL } from "./url.ts";

/** The fields from which the header of a card's page takes the title and the description. */
const SHOWN_ABOVE = [
  "title",
  "name",
  "displayName",
  "description",
  "summary",
  "subtitle",
  "excerpt",
];

/** A Markdown field with one of these names is the card's main text. It is shown without a heading. */
const MAIN_TEXT = ["body", "content", "text", "bio", "introduction"];

function DefaultIsolated({ card, realm }: TemplateProps) {
  const title = titleOf(card, realm);
  const description = descriptionOf(card);
  const image = imageOf(card);
  const rows = rowsOf(card, [title, description, image]);
  return (
    <article class="rb-card rb-isolated">
      <header class="rb-header">
        <p class="rb-kind">{displayNameOf(classOf(card))}</p>
        <h1 class="rb-title">{title}</h1>
        {description && <p class="rb-description">{description}</p>}
      </header>
      {image && <img class="rb-hero" src={image} alt="" />}
      <Facts rows={rows.filter(isFact)} />
      {rows.filter((row) => !isFact(row)).map((row) => <Section row={row} />)}
    </article>
  );
}

function DefaultEmbedded({ card, realm }: TemplateProps) {
  if (stateOf(card).path !== "") return <Contained card={card} />;
  const image = imageOf(card);
  return (
    <article class="rb-card rb-embedded">
      {image && <img class="rb-thumb" src={image} alt="" loading="lazy" />}
      <div class="rb-text">
        <h3 class="rb-title">
          <Link card={card}>{titleOf(card, realm)}</Link>
        </h3>
        <Teaser card={card} />
      </div>
    </article>
  );
}

function DefaultFitted({ card, realm }: TemplateProps) {
  const image = imageOf(card);
  return (
    <article class="rb-card rb-fitted">
      {image && <img class="rb-thumb" src={image} alt="" loading="lazy" />}
      <div class="rb-text">
        <p class="rb-kind">{displayNameOf(classOf(card))}</p>
        <h3 class="rb-title">
          <Link card={card}>{titleOf(card, realm)}</Link>
        </h3>
        <Teaser card={card} />
      </div>
    </article>
  );
}

function DefaultAtom({ card, realm }: TemplateProps) {
  if (stateOf(card).path === "") {
    return <Link card={card} class="rb-atom">{titleOf(card, realm)}</Link>;
  }
  const title = firstText(card, ["title", "name", "displayName"]);
  return <span class="rb-atom">{title ?? shortTexts(card, []).join(", ")}</span>;
}

/** The text under the title of an embedded card: its description, or else up to three short values. */
function Teaser({ card }: { card: Card }) {
  const description = descriptionOf(card);
  if (description) return <p class="rb-description">{description}</p>;
  const texts = shortTexts(card, [titleOf(card)]).slice(0, 3);
  return texts.length > 0 ? <p class="rb-meta">{texts.join(" · ")}</p> : null;
}

/** The beginning of a card's main text, which stands in for a missing description. */
function firstWordsOf(card: Card): string | null {
  const text = firstText(card, MAIN_TEXT);
  return text && excerpt(text);
}

export interface HeadProps extends TemplateProps {
  /** `title`, `description` and `image` replace those that the card itself has. */
  title?: string;
  description?: string;
  image?: string | null;
  children?: ComponentChildren;
}

/**
 * The default content of the `<head>` of a card's page. A type's own head template can use this
 * component, and add elements to it as `children`.
 */
export function DefaultHead({ card, realm, children, ...own }: HeadProps) {
  const title = own.title ?? titleOf(card, realm);
  const description = own.description ?? descriptionOf(card) ?? firstWordsOf(card);
  const image = own.image ?? imageOf(card);
  const url = pageURL(stateOf(card).url);
  return (
    <>
      <title>{title === realm.name ? title : `${title} · ${realm.name}`}</title>
      {description && <meta name="description" content={description} />}
      <link rel="canonical" href={url} />
      <meta property="og:type" content="website" />
      <meta property="og:site_name" content={realm.name} />
      <meta property="og:title" content={title} />
      {description && <meta property="og:description" content={description} />}
      {image && <meta property="og:image" content={image} />}
      <meta property="og:url" content={url} />
      {realm.iconURL && <link rel="icon" href={realm.iconURL} />}
      <link rel="stylesheet" href={realm.stylesheet ?? `${realm.baseURL}page.css`} />
      {children}
    </>
  );
}

export const defaultTemplates: Record<Format, AnyTemplate> = {
  isolated: DefaultIsolated,
  embedded: DefaultEmbedded,
  fitted: DefaultFitted,
  atom: DefaultAtom,
  head: DefaultHead,
};

interface Row {
  name: string;
  field: Field;
  value: unknown;
}

/**
 * The fields of a card that have a value. `above` is the list of the values that the page already
 * shows, for example as the card's title. Leaves out the fields that these values come from.
 */
function rowsOf(card: Card, above: unknown[]): Row[] {
  return Object.entries(allFields(classOf(card)))
    .map(([name, field]) => ({
      name,
      field,
      value: (card as TemplateProps["card"])[name],
    }))
    .filter(({ value }) => !isEmpty(value))
    .filter(({ name, field, value }) =>
      !(above.includes(value) && (SHOWN_ABOVE.includes(name) || field.type === "image"))
    );
}

/**
 * Whether the value is shown beside its label. Markdown, images and cards have sections of their own
 * instead. But a single linked card is shown as a link beside its label.
 */
function isFact({ field, value }: Row): boolean {
  if (field.type === "markdown" || field.type === "image") return false;
  return field.kind === "linksTo" || !(value instanceof Card) && !isCards(value);
}

function Facts({ rows }: { rows: Row[] }) {
  if (rows.length === 0) return null;
  return (
    <dl class="rb-facts">
      {rows.map(({ name, field, value }) => (
        <div key={name} title={field.options.description}>
          <dt>{labelOf(name, field)}</dt>
          <dd>
            <Value field={field} value={value} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** The section for one field with Markdown, images or cards. */
function Section({ row: { name, field, value } }: { row: Row }) {
  const heading = !(field.type === "markdown" && MAIN_TEXT.includes(name));
  return (
    <section class="rb-section">
      {heading && <h2 class="rb-heading">{labelOf(name, field)}</h2>}
      <Value field={field} value={value} />
    </section>
  );
}

/** A contained card, shown as a part of the card that contains it. */
function Contained({ card }: { card: Card }) {
  const rows = rowsOf(card, []);
  return (
    <div class="rb-contained">
      <Facts rows={rows.filter(isFact)} />
      {rows.filter((row) => !isFact(row)).map((row) => <Section row={row} />)}
    </div>
  );
}

function Value({ field, value }: { field: Field; value: unknown }) {
  if (Array.isArray(value)) {
    const tiles = field.kind === "linksToMany";
    const format = tiles ? "fitted" : "embedded";
    return (
      <ul class={tiles ? "rb-grid" : isCards(value) ? "rb-list" : "rb-values"}>
        {value.map((item) => (
          <li>
            {item instanceof Card
              ? <Embed card={item} format={format} />
              : <Value field={field} value={item} />}
          </li>
        ))}
      </ul>
    );
  }
  if (value instanceof Card) {
    return <Embed card={value} format={field.kind === "linksTo" ? "atom" : "embedded"} />;
  }
  if (value instanceof Date) return <time dateTime={value.toISOString()}>{textOf(value)}</time>;
  if (field.type === "markdown") return <Markdown text={String(value)} />;
  if (field.type === "image") {
    return <img class="rb-image" src={String(value)} alt="" loading="lazy" />;
  }
  const text = textOf(value);
  if (/^https?:\/\/[^\s]+$/.test(text)) {
    return <a href={text}>{text.replace(/^https?:\/\//, "").replace(/\/$/, "")}</a>;
  }
  return <>{text}</>;
}

/**
 * Formats a value as readable text. A number of four digits gets no thousands separator, because it
 * may be a year.
 */
function textOf(value: unknown): string {
  if (value instanceof Date) return formatDate(value);
  if (typeof value === "boolean") return value ? "Yes" : "No";
  if (typeof value === "number") return value.toLocaleString("en-GB", { useGrouping: "min2" });
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * A card's short texts and its dates, as text. Readers understand these values without a label.
 * `above` is the list of the values that the page already shows.
 */
function shortTexts(card: Card, above: unknown[]): string[] {
  return rowsOf(card, above)
    .filter(({ field, value }) =>
      field.type !== "image" && field.type !== "markdown" &&
      (typeof value === "string" && value.length <= 80 || value instanceof Date)
    )
    .map(({ value }) => textOf(value));
}

function isCards(value: unknown): boolean {
  return Array.isArray(value) && value.some((item) => item instanceof Card);
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || value === "" ||
    (Array.isArray(value) && value.length === 0);
}

/** The label of a field, or else the field's name in words: "First published" for `firstPublished`. */
function labelOf(name: string, field: Field): string {
  if (field.options.label !== undefined) return field.options.label;
  const words = name.replaceAll(/[-_]+/g, " ").replaceAll(/([a-z\d])([A-Z])/g, "$1 $2");
  return words.charAt(0).toUpperCase() + words.slice(1).toLowerCase();
}
