import { Card, Embed, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Page } from "./layout.tsx";

/** A page of text and cards, for example the page with all tools, or the one on how to join. */
export class TextPage extends Card {
  static displayName = "Page";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    items: linksToMany(() => Card),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm}>
      <h1>{card.title}</h1>
      <p class="lead">{card.summary}</p>
      <Markdown text={card.body} />
      <div class="items">{card.items.map((item) => <Embed card={item} />)}</div>
    </Page>
  ));
}
