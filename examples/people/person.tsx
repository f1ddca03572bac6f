import {
  Card,
  Embed,
  image,
  Link,
  linksTo,
  linksToMany,
  Markdown,
  markdown,
  number,
  string,
} from "@realm/base";
import { Page } from "./layout.tsx";
import { Place } from "./place.tsx";

export class Person extends Card {
  static displayName = "Person";
  static fields = {
    name: string(),
    role: string(),
    summary: string(),
    bio: markdown(),
    portrait: image(),
    door: number({ description: "Their number in the Row" }),
    colour: string({ description: "Of the door" }),
    hours: string({ label: "When to knock" }),
    worksAt: linksTo(() => Place),
    neighbours: linksToMany(() => Person),
  };

  /** Styles of a person in a list, in this realm or another. The colours are those of the page. */
  static styles = `
    .person-row,
    .person-tile {
      display: grid;
      grid-template-columns: 4rem minmax(0, 1fr);
      gap: 1.1rem;
      align-items: center;
      box-sizing: border-box;
      height: 100%;
      padding: 1rem 0;
      border-top: 1px solid var(--line, currentColor);
      color: inherit;
      text-decoration: none;
    }
    .person-tile {
      grid-template-columns: 3.2rem minmax(0, 1fr);
    }
    .person-tile img {
      width: 3.2rem;
      height: auto;
    }
    .person-row strong,
    .person-tile strong {
      display: block;
      font-size: 1.15rem;
      line-height: 1.3;
    }
    .person-row:hover strong,
    .person-tile:hover strong {
      text-decoration: underline;
    }
    .person-row .role,
    .person-tile .role,
    .summary {
      display: block;
      line-height: 1.45;
    }
    .summary {
      color: var(--soft, inherit);
    }
  `;

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm}>
      <article class="person" style={`--door: ${card.colour}`}>
        <div class="frame">
          <img
            src={card.portrait ?? ""}
            alt={`Portrait of ${card.name}`}
            width="320"
            height="400"
          />
          <p class="plate">{card.door}</p>
        </div>
        <div class="about">
          <h1>{card.name}</h1>
          <p class="role">{card.role}</p>
          <Markdown text={card.bio} />
          <dl>
            <dt>Door</dt>
            <dd>No. {card.door}</dd>
            <dt>Works at</dt>
            <dd>
              <Link card={card.worksAt} />
            </dd>
            <dt>Knock</dt>
            <dd>{card.hours}</dd>
          </dl>
          <h2>Next door</h2>
          <div class="person-tiles">
            {card.neighbours.map((person) => <Embed card={person} format="fitted" />)}
          </div>
        </div>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="person-row">
      <img src={card.portrait ?? ""} alt="" width="64" height="80" loading="lazy" />
      <span>
        <strong>{card.name}</strong>
        <span class="role">{card.role}</span>
        <span class="summary">{card.summary}</span>
      </span>
    </Link>
  ));

  static fitted = this.template(({ card }) => (
    <Link card={card} class="person-tile">
      <img src={card.portrait ?? ""} alt="" width="64" height="80" loading="lazy" />
      <span>
        <strong>{card.name}</strong>
        <span class="role">{card.role}</span>
      </span>
    </Link>
  ));

  static atom = this.template(({ card }) => <Link card={card} class="person-name" />);
}
