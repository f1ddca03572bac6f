import { Card, Embed, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Group, Page } from "./layout.tsx";

/** A page that lists cards, for example all lights or all walks. */
export class Section extends Card {
  static displayName = "Section";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    items: linksToMany(() => Card),
    moreTitle: string(),
    more: linksToMany(() => Card),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here={card.id.split("/").pop()} class="section" index>
      <header>
        <h1>{card.title}</h1>
        <p class="lead">{card.summary}</p>
      </header>
      <Markdown class="prose" text={card.body} />
      <div class="list">
        {card.items.map((item) => <Embed card={item} />)}
      </div>
      <Group title={card.moreTitle} cards={card.more}>
        <div class="list">
          {card.more.map((item) => <Embed card={item} />)}
        </div>
      </Group>
    </Page>
  ));
}
