import {
  Card,
  date,
  Embed,
  formatDate,
  Link,
  linksToMany,
  Markdown,
  markdown,
  number,
  string,
} from "@realm/base";
import { Page, Tape } from "./layout.tsx";
import { Tool } from "./tool.tsx";

export class Evening extends Card {
  static displayName = "Evening";
  static description = "A class under the arch";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    when: date(),
    with: string({ label: "Taught by" }),
    places: number(),
    price: string(),
    tools: linksToMany(() => Tool),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="evenings">
      <article class="guide">
        <p class="state">
          <Tape>{formatDate(card.when, WHEN)}</Tape>
        </p>
        <h1>{card.title}</h1>
        <p class="lead">{card.summary}</p>
        <Markdown text={card.body} />
        <dl>
          <dt>With</dt>
          <dd>{card.with}</dd>
          <dt>Places</dt>
          <dd>{card.places}</dd>
          <dt>Price</dt>
          <dd>{card.price}</dd>
        </dl>
        <h2>In your hands</h2>
        <div class="board">{card.tools.map((tool) => <Embed card={tool} />)}</div>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="row dated">
      <span class="day">
        {formatDate(card.when, { day: "numeric" })}
        <small>{formatDate(card.when, { month: "short" })}</small>
      </span>
      <span>
        <strong>{card.title}</strong>
        <span>{card.summary}</span>
      </span>
    </Link>
  ));
}

const WHEN: Intl.DateTimeFormatOptions = {
  weekday: "long",
  day: "numeric",
  month: "long",
  hour: "numeric",
  minute: "2-digit",
};
