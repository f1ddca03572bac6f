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
