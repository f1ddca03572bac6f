import { Card, Embed, Link, linksToMany, Markdown, markdown, string } from "@realm/base";
import { Group, Page } from "./layout.tsx";
import { Light } from "./light.tsx";
import { Rhythm } from "./rhythm.tsx";

export class Term extends Card {
  static displayName = "Term";
  static description = "A word for what a light or a mark does";
  static fields = {
    title: string(),
    summary: string(),
    sample: string({ description: "A character that shows it, in chart notation" }),
    body: markdown(),
    examples: linksToMany(() => Light),
    see: linksToMany(() => Term),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="terms" class="term">
      <article>
        <header>
          <p class="kicker">Reading a light</p>
          <h1>{card.title}</h1>
          <p class="lead">{card.summary}</p>
        </header>
        <p class="notation">{card.sample}</p>
        <Rhythm notation={card.sample} />
        <Markdown class="prose" text={card.body} />
        <p class="see">
          See also {card.see.map((term, index) => (
            <>
              {index > 0 && ", "}
              <Link card={term} />
            </>
          ))}.
        </p>
        <Group title="Where to find one" cards={card.examples}>
          <div class="list">
            {card.examples.map((light) => <Embed card={light} />)}
          </div>
        </Group>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="term-row">
      <span class="what">
        <strong>{card.title}</strong>
        <span class="summary">{card.summary}</span>
      </span>
      <Rhythm notation={card.sample} />
    </Link>
  ));

  static fitted = this.embedded;
}
