/** The templates of cards that declare none: every card has a decent page, tile, link and head. */
import type { ComponentChildren } from "preact";
import {
  allFields,
  Card,
  classOf,
  descriptionOf,
  displayNameOf,
  imageOf,
  stateOf,
  titleOf,
} from "./card.ts";
import { Embed, Link } from "./embed.tsx";
import type { Field } from "./fields.ts";
import { formatDate } from "./helpers.ts";
import { Markdown } from "./markdown.tsx";
import type { AnyTemplate, Format, TemplateProps } from "./types.ts";

/** Fields that the head of a page shows already. */
const SHOWN_ABOVE = [
  "title",
  "name",
  "displayName",
  "description",
  "summary",
  "subtitle",
  "excerpt",
];

function DefaultIsolated({ card, realm }: TemplateProps) {
  const title = titleOf(card, realm);
  const description = descriptionOf(card);
  return (
    <article class="rb-card rb-isolated">
      <header class="rb-header">
        <p class="rb-kind">{displayNameOf(classOf(card))}</p>
        <h1 class="rb-title">{title}</h1>
        {description && <p class="rb-description">{description}</p>}
      </header>
      <Fields card={card} hidden={[title, description]} />
    </article>
  );
}

function DefaultEmbedded({ card, realm }: TemplateProps) {
  if (stateOf(card).path !== "") return <Fields card={card} hidden={[]} />;
  const description = descriptionOf(card);
  const image = imageOf(card);
  return (
    <article class="rb-card rb-embedded">
      {image && <img class="rb-thumb" src={image} alt="" loading="lazy" />}
      <div class="rb-text">
        <h3 class="rb-title">
          <Link card={card}>{titleOf(card, realm)}</Link>
        </h3>
        {description && <p class="rb-description">{description}</p>}
      </div>
    </article>
  );
}

function DefaultFitted({ card, realm }: TemplateProps) {
  const description = descriptionOf(card);
  const image = imageOf(card);
  return (
    <article class="rb-card rb-fitted">
      {image && <img class="rb-thumb" src={image} alt="" loading="lazy" />}
      <div class="rb-text">
        <p class="rb-kind">{displayNameOf(classOf(card))}</p>
        <h3 class="rb-title">
          <Link card={card}>{titleOf(card, realm)}</Link>
        </h3>
        {description && <p class="rb-description">{description}</p>}
      </div>
    </article>
  );
}

function DefaultAtom({ card, realm }: TemplateProps) {
  return <Link card={card} class="rb-atom">{titleOf(card, realm)}</Link>;
}

export interface HeadProps extends TemplateProps {
  /** Where they differ from the card's own. */
  title?: string;
  description?: string;
  image?: string | null;
  children?: ComponentChildren;
}

/** The default head of a card's page; a head template of one's own can use it and add to it. */
export function DefaultHead({ card, realm, children, ...own }: HeadProps) {
  const title = own.title ?? titleOf(card, realm);
  const description = own.description ?? descriptionOf(card);
  const image = own.image ?? imageOf(card);
  const { url } = stateOf(card);
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
      <link rel="stylesheet" href={realm.stylesheet ?? `${realm.baseURL}card.css`} />
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

/** The fields of a card that hold something, each with its label. */
function Fields({ card, hidden }: { card: Card; hidden: unknown[] }) {
  const rows = Object.entries(allFields(classOf(card)))
    .map(([name, field]) => ({ name, field, value: (card as TemplateProps["card"])[name] }))
    .filter(({ value }) => !isEmpty(value))
    .filter(({ name, value }) => !(SHOWN_ABOVE.includes(name) && hidden.includes(value)));
  if (rows.length === 0) return null;
  return (
    <dl class="rb-fields">
      {rows.map(({ name, field, value }) => (
        <div class={`rb-field rb-field-${field.type ?? field.kind}`} key={name}>
          <dt>{field.options.label ?? labelOf(name)}</dt>
          <dd>
            <Value field={field} value={value} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

function Value({ field, value }: { field: Field; value: unknown }) {
  if (Array.isArray(value)) {
    return (
      <ul class="rb-list">
        {value.map((item) => (
          <li>
            <Value field={field} value={item} />
          </li>
        ))}
      </ul>
    );
  }
  if (value instanceof Card) return <Embed card={value} format="embedded" />;
  if (value instanceof Date) return <time dateTime={value.toISOString()}>{formatDate(value)}</time>;
  if (field.type === "markdown") return <Markdown text={String(value)} />;
  if (field.type === "image") {
    return <img class="rb-image" src={String(value)} alt="" loading="lazy" />;
  }
  if (typeof value === "boolean") return <>{value ? "Yes" : "No"}</>;
  if (typeof value === "number") return <>{value.toLocaleString("en-GB")}</>;
  return <>{typeof value === "object" ? JSON.stringify(value) : String(value)}</>;
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || value === "" ||
    (Array.isArray(value) && value.length === 0);
}

/** `firstPublished` reads "First published". */
function labelOf(name: string): string {
  const words = name.replaceAll(/[-_]+/g, " ").replaceAll(/([a-z\d])([A-Z])/g, "$1 $2");
  return words.charAt(0).toUpperCase() + words.slice(1).toLowerCase();
}
