/** `<Markdown>` shows Markdown as HTML. It makes the URLs of links and images absolute. */
import MarkdownIt from "markdown-it";
import { Component } from "preact";
import { addressOf, stateOf } from "./card.ts";
import { type Place, PlaceContext } from "./context.ts";
import { resolveURL } from "./url.ts";
import type { Reference } from "./warnings.ts";

/** The parser escapes HTML in a text, because a card's data must not become code on a page. */
const parser = new MarkdownIt({ html: false, linkify: true, typographer: true });

for (const [rule, attribute] of [["link_open", "href"], ["image", "src"]] as const) {
  const usual = parser.renderer.rules[rule];
  parser.renderer.rules[rule] = (tokens, index, options, env, renderer) => {
    const token = tokens[index];
    const target = token.attrGet(attribute);
    // A target that begins with `#` is a heading of the same page and stays unchanged.
    if (typeof target === "string" && !target.startsWith("#")) {
      const { bases, address } = env as Surroundings;
      const url = resolveURL(target, bases[rule]);
      token.attrSet(attribute, url === null ? target : address(url));
    }
    if (rule === "image") token.attrSet("loading", "lazy");
    return usual
      ? usual(tokens, index, options, env, renderer)
      : renderer.renderToken(tokens, index, options);
  };
}

/**
 * The maximum length of an excerpt, without the `…` at its end. Search engines show about this much
 * of a description. Unit: characters.
 */
const EXCERPT = 200;

/**
 * The beginning of a text's first paragraph with words, without markup. Null if the beginning of
 * the text, `10 * EXCERPT` characters, has no such paragraph.
 */
export function excerpt(text: string): string | null {
  const tokens = parser.parse(text.slice(0, 10 * EXCERPT), {});
  for (const [index, token] of tokens.entries()) {
    if (tokens[index - 1]?.type !== "paragraph_open") continue;
    const words = (token.children ?? []).map(wordsOf).join("").trim();
    if (words.length > EXCERPT) return `${words.slice(0, EXCERPT).replace(/\s+\S*$/, "")} …`;
    if (words) return words;
  }
  return null;
}

function wordsOf({ type, content }: { type: string; content: string }): string {
  if (type === "softbreak" || type === "hardbreak") return " ";
  return type === "text" || type === "code_inline" ? content : "";
}

/**
 * The URLs against which the relative links and images in a card's texts are resolved. For links,
 * this is the published URL of the card (`addressOf`). For images, it is the card's own URL, which
 * may be in a source realm.
 */
export type Bases = Record<"link_open" | "image", string>;

/** The absolute URLs of a text's links and images, without links to headings of the same page. */
export function markdownReferences(text: string, bases: Bases): Omit<Reference, "key">[] {
  const found: Omit<Reference, "key">[] = [];
  // Most texts have neither a link nor an image. Returns early for them, because parsing is slow.
  if (!/\]\s*[([:]|<http|:\/\//.test(text)) return found;
  const stack = [...parser.parse(text, {})];
  for (let token = stack.shift(); token; token = stack.shift()) {
    stack.unshift(...token.children ?? []);
    const kind = token.type === "image" ? "image" : "link";
    const target = token.attrGet(kind === "image" ? "src" : "href");
    if (typeof target !== "string" || target.startsWith("#")) continue;
    const url = resolveURL(target, bases[kind === "image" ? "image" : "link_open"]);
    if (url !== null) found.push({ url, kind });
  }
  return found;
}

type Surroundings = {
  bases: Bases;
  /** Returns the published URL for a URL in a source realm, and any other URL unchanged. */
  address(url: string): string;
};

export interface MarkdownProps {
  text: string | null | undefined;
  class?: string;
}

export class Markdown extends Component<MarkdownProps> {
  static contextType = PlaceContext;

  render() {
    const { text, class: className } = this.props;
    if (!text) return null;
    const { card } = this.context as Place;
    const { store, url } = stateOf(card);
    const around: Surroundings = {
      bases: { link_open: addressOf(card), image: url },
      address: (url) => store.address(url),
    };
    const classes = className ? `rb-markdown ${className}` : "rb-markdown";
    return (
      <div
        class={classes}
        dangerouslySetInnerHTML={{ __html: parser.render(text, around) }}
      />
    );
  }
}
