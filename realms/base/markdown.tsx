/** `<Markdown>`: text as HTML, its links and images resolved against the card that it is written in. */
import MarkdownIt from "markdown-it";
import { Component } from "preact";
import { addressOf, stateOf } from "./card.ts";
import { type Place, PlaceContext } from "./context.ts";
import { resolveURL } from "./url.ts";

/** HTML in the text stays text: what a card's data says must not become code on a page. */
const parser = new MarkdownIt({ html: false, linkify: true, typographer: true });

for (const [rule, attribute] of [["link_open", "href"], ["image", "src"]] as const) {
  const usual = parser.renderer.rules[rule];
  parser.renderer.rules[rule] = (tokens, index, options, env, renderer) => {
    const token = tokens[index];
    const target = token.attrGet(attribute);
    // A link to a heading of the same page stays one.
    if (typeof target === "string" && !target.startsWith("#")) {
      token.attrSet(attribute, resolveURL(target, (env as Bases)[rule]) ?? target);
    }
    if (rule === "image") token.attrSet("loading", "lazy");
    return usual
      ? usual(tokens, index, options, env, renderer)
      : renderer.renderToken(tokens, index, options);
  };
}

/** As much of a description as search engines show. Unit: characters. */
const EXCERPT = 200;

/** The first paragraph of a text, in plain words. */
export function excerpt(text: string): string | null {
  // What comes first needs no more than the beginning.
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

/** What links and images are relative to: the card's page, and its file. */
type Bases = Record<"link_open" | "image", string>;

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
    const bases: Bases = { link_open: addressOf(card), image: stateOf(card).url };
    const classes = className ? `rb-markdown ${className}` : "rb-markdown";
    return <div class={classes} dangerouslySetInnerHTML={{ __html: parser.render(text, bases) }} />;
  }
}
