import {
  Card,
  date,
  Embed,
  formatDate,
  image,
  Link,
  linksTo,
  linksToMany,
  Markdown,
  markdown,
  string,
} from "@realm/base";
import { Person } from "/demo/people/person.tsx";
import { Group, Page } from "./layout.tsx";
import { Light } from "./light.tsx";

export class Essay extends Card {
  static displayName = "Essay";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    published: date(),
    hero: image(),
    heroAlt: string(),
    author: linksTo(() => Person),
    about: linksToMany(() => Light),
    next: linksTo(() => Essay),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="essays" class="essay">
      <article>
        <header>
          <p class="kicker">Essay</p>
          <h1>{card.title}</h1>
          <p class="lead">{card.summary}</p>
          <p class="byline">
            <Link card={card.author} />, {formatDate(card.published)}
          </p>
        </header>
        <img class="hero" src={card.hero ?? ""} alt={card.heroAlt} width="1200" height="560" />
        <Markdown class="prose opening-cap" text={card.body} />
        <div class="signed">
          <Embed card={card.author} />
        </div>
        <Group title="Lights in this essay" cards={card.about}>
          <div class="list">
            {card.about.map((light) => <Embed card={light} />)}
          </div>
        </Group>
        <Group title="Read next">
          <Embed card={card.next} />
        </Group>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="essay-row">
      <img src={card.hero ?? ""} alt="" width="1200" height="560" loading="lazy" />
      <span class="what">
        <strong>{card.title}</strong>
        <span class="summary">{card.summary}</span>
        <span class="by">{card.author?.name}, {formatDate(card.published)}</span>
      </span>
    </Link>
  ));

  static fitted = this.template(({ card }) => (
    <Link card={card} class="tile">
      <img src={card.hero ?? ""} alt="" width="1200" height="560" loading="lazy" />
      <span class="kind">Essay</span>
      <strong>{card.title}</strong>
      <span class="note">{card.author?.name}</span>
    </Link>
  ));
}
