import { Card, Embed, Link, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Page } from "./layout.tsx";
import { Tool } from "./tool.tsx";

/** Explains how to do one thing without hurting the tool, the wall or yourself. */
export class Guide extends Card {
  static displayName = "Advice";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    by: string(),
    tools: linksToMany(() => Tool),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="advice">
      <article class="guide">
        <h1>{card.title}</h1>
        <p class="lead">{card.summary}</p>
        <Markdown text={card.body} />
        <p class="by">{card.by}</p>
        <h2>You will want</h2>
        <div class="board">{card.tools.map((tool) => <Embed card={tool} />)}</div>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="row">
      <strong>{card.title}</strong>
      <span>{card.summary}</span>
    </Link>
  ));
}
