/**
 * `@realm/base`: the library that card modules import.
 *
 *     import { Card, linksTo, markdown, string } from "@realm/base";
 *
 *     export class Post extends Card {
 *       static fields = { title: string(), body: markdown(), author: linksTo(() => Person) };
 *       static isolated = this.template(({ card }) => <h1>{card.title}</h1>);
 *     }
 */
export { Card, descriptionOf, imageOf, titleOf } from "./card.ts";
export { CardsIndex } from "./cards-index.tsx";
export { DefaultHead, type HeadProps } from "./defaults.tsx";
export { Embed, type EmbedProps, Link, type LinkProps } from "./embed.tsx";
export {
  boolean,
  computed,
  contains,
  containsMany,
  date,
  type Field,
  type FieldOptions,
  image,
  linksTo,
  linksToMany,
  markdown,
  number,
  string,
} from "./fields.ts";
export { asset, formatDate, urlOf } from "./helpers.ts";
export { Markdown, type MarkdownProps } from "./markdown.tsx";
export { RealmConfig } from "./realm-config.ts";
export { FORMATS } from "./render.ts";
export type {
  AnyCard,
  CardDocument,
  CardOf,
  CodeRef,
  FieldsOf,
  Format,
  RealmInfo,
  Template,
  TemplateProps,
} from "./types.ts";

/** The prerenderer (`reindex/deno/`) uses the following exports. Card modules need none of them. */
export { allLinkedURLs } from "./nested.ts";
export { checkDocument } from "./check.ts";
export { Styles } from "./styles.ts";
export { CodeRefs, type Definition, describeModule } from "./describe.ts";
export { isCardClass } from "./card.ts";
export { referencesOf } from "./references.ts";
export { renderCard } from "./render.ts";
export { searchDocument } from "./search.ts";
export { type CardSource, CardStore, UnavailableCard } from "./store.ts";
export { resolveCardURL, resolveURL } from "./url.ts";
export type { CardClass } from "./types.ts";
export type { Reference, Warning } from "./warnings.ts";
