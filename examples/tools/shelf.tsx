import { Card, Embed, Link, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Page } from "./layout.tsx";
import { Tool } from "./tool.tsx";

/** A part of the board, with tools for one kind of work. */
export class Shelf extends Card {
  static displayName = "Shelf";
  static fields = {
    name: string(),
    summary: string(),
    colour: string({ description: "Of its label tape" }),
    body: markdown(),
    tools: linksToMany(() => Tool),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="tools">
      <h1>{card.name}</h1>
      <p class="lead">{card.summary}</p>
      <Markdown text={card.body} />
      <div class="board">{card.tools.map((tool) => <Embed card={tool} />)}</div>
    </Page>
  ));

  /** The shelf with all its tools. */
  static embedded = this.template(({ card }) => (
    <section class="shelf">
      <h2>
        <Link card={card} />
      </h2>
      <p>{card.summary}</p>
      <div class="board">{card.tools.map((tool) => <Embed card={tool} />)}</div>
    </section>
  ));
}
