import { Card, Embed, image, Link, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Page } from "./layout.tsx";
import { Person } from "./person.tsx";

export class Place extends Card {
  static displayName = "Place";
  static fields = {
    name: string(),
    summary: string(),
    body: markdown(),
    picture: image(),
    people: linksToMany(() => Person),
  };

  static styles = `
    .place-row {
      display: block;
      color: inherit;
      text-decoration: none;
    }
    .place-row strong {
      display: block;
      margin-top: 0.6rem;
      font-size: 1.15rem;
    }
    .place-row:hover strong {
      text-decoration: underline;
    }
    .summary {
      display: block;
      color: var(--soft, inherit);
      line-height: 1.45;
    }
  `;

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm}>
      <article class="place">
        <img
          src={card.picture ?? ""}
          alt={`${card.name}, drawn from the quay`}
          width="800"
          height="300"
        />
        <h1>{card.name}</h1>
        <p class="role">{card.summary}</p>
        <Markdown text={card.body} />
        <h2>Who works here</h2>
        <div class="person-rows">
          {card.people.map((person) => <Embed card={person} />)}
        </div>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="place-row">
      <img src={card.picture ?? ""} alt="" width="800" height="300" loading="lazy" />
      <strong>{card.name}</strong>
      <span class="summary">{card.summary}</span>
    </Link>
  ));
}
