import { Card, Embed, image, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Evening } from "./evening.tsx";
import { Guide } from "./guide.tsx";
import { Page } from "./layout.tsx";
import { Shelf } from "./shelf.tsx";
import { Tool } from "./tool.tsx";

export class Home extends Card {
  static displayName = "Home";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    picture: image({ label: "Picture for sharing" }),
    board: linksToMany(() => Tool),
    shelves: linksToMany(() => Shelf),
    evenings: linksToMany(() => Evening),
    advice: linksToMany(() => Guide),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm}>
      <h1 class="motto">{card.title}</h1>
      <div class="board wall">{card.board.map((tool) => <Embed card={tool} />)}</div>
      <p class="all">
        <a href={`${realm.url}tools`}>See the whole board</a>
      </p>
      <div class="halves">
        <div class="about">
          <Markdown text={card.body} />
          <p>
            <a class="button" href={`${realm.url}joining`}>Join for £12 a year</a>
          </p>
        </div>
        <section>
          <h2>
            <a href={`${realm.url}evenings`}>Evenings under the arch</a>
          </h2>
          {card.evenings.map((evening) => <Embed card={evening} />)}
        </section>
      </div>
      <section>
        <h2>
          <a href={`${realm.url}advice`}>Read before drilling</a>
        </h2>
        <div class="guides">{card.advice.map((guide) => <Embed card={guide} />)}</div>
      </section>
    </Page>
  ));
}
