import {
  Card,
  containsMany,
  Embed,
  Link,
  linksTo,
  linksToMany,
  Markdown,
  markdown,
  number,
  string,
} from "@realm/base";
import { Person } from "/demo/people/person.tsx";
import { Island } from "./island.tsx";
import { Group, Page } from "./layout.tsx";
import { Light } from "./light.tsx";

export class Walk extends Card {
  static displayName = "Walk";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    kilometres: number(),
    ascent: number({ description: "Metres" }),
    time: string(),
    grade: string(),
    start: string(),
    tide: string({ description: "What the tide asks of the walker" }),
    stages: containsMany(string(), { description: "Place, distance in km" }),
    island: linksTo(() => Island),
    lights: linksToMany(() => Light),
    author: linksTo(() => Person),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="walks" class="walk">
      <article>
        <header>
          <p class="kicker">
            Walk on <Link card={card.island} />
          </p>
          <h1>{card.title}</h1>
          <p class="lead">{card.summary}</p>
        </header>
        <dl class="figures">
          <div>
            <dt>Distance</dt>
            <dd>{card.kilometres} km</dd>
          </div>
          <div>
            <dt>Climbing</dt>
            <dd>{card.ascent} m</dd>
          </div>
          <div>
            <dt>Time</dt>
            <dd>{card.time}</dd>
          </div>
          <div>
            <dt>Grade</dt>
            <dd>{card.grade}</dd>
          </div>
        </dl>
        <div class="columns">
          <Markdown class="prose" text={card.body} />
          <aside class="particulars">
            <h2>The way</h2>
            <ol class="stages">
              {card.stages.map((stage) => {
                const [place, distance] = stage.split(/, (?=[\d.]+ km$)/);
                return (
                  <li>
                    {place} <span>{distance}</span>
                  </li>
                );
              })}
            </ol>
            <dl>
              <dt>Start</dt>
              <dd>{card.start}</dd>
              <dt>Tide and weather</dt>
              <dd>{card.tide}</dd>
            </dl>
          </aside>
        </div>
        <div class="signed">
          <Embed card={card.author} />
        </div>
        <Group title="Lights on the way" cards={card.lights}>
          <div class="list">
            {card.lights.map((light) => <Embed card={light} />)}
          </div>
        </Group>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="walk-row">
      <span class="distance">
        {card.kilometres}
        <small>km</small>
      </span>
      <span class="what">
        <strong>{card.title}</strong>
        <span class="summary">{card.summary}</span>
        <span class="by">{card.island?.title}, {card.time}, {card.grade.toLowerCase()}</span>
      </span>
    </Link>
  ));

  static fitted = this.template(({ card }) => (
    <Link card={card} class="tile">
      <span class="kind">Walk, {card.kilometres} km</span>
      <strong>{card.title}</strong>
      <span class="note">{card.island?.title}</span>
    </Link>
  ));
}
