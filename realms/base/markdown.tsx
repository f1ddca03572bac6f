/** `<Markdown>`: text as HTML, its links and images resolved against the card that it is written in. */
import MarkdownIt from "markdown-it";
import { Component } from "preact";
import { stateOf } from "./card.ts";
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
      token.attrSet(attribute, resolveURL(target, (env as { base: string }).base) ?? target);
    }
    if (rule === "image") token.attrSet("loading", "lazy");
    return usual
      ? usual(tokens, index, options, env, renderer)
      : renderer.renderToken(tokens, index, options);
  };
}

export interface MarkdownProps {
  text: string | null | undefined;
  class?: string;
}

export class Markdown extends Component<MarkdownProps> {
  static contextType = PlaceContext;

  render() {
    const { text, class: className } = this.props;
    if (!text) return null;
    const base = stateOf((this.context as Place).card).url;
    const classes = className ? `rb-markdown ${className}` : "rb-markdown";
    return (
      <div class={classes} dangerouslySetInnerHTML={{ __html: parser.render(text, { base }) }} />
    );
  }
}
