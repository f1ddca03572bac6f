import {
  Card,
  Embed,
  image,
  Link,
  linksToMany,
  Markdown,
  markdown,
  number,
  string,
} from "@realm/base";
import { Chart } from "./chart.tsx";
import { Group, Page } from "./layout.tsx";
import { Light } from "./light.tsx";
import { Walk } from "./walk.tsx";

export class Island extends Card {
  static displayName = "Island";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    profile: image({ description: "The island as it is seen from the sea" }),
    profileNote: string(),
    people: number(),
    area: string(),
    highest: string(),
    coast: string({ description: "Its outline on the chart, as SVG path data" }),
    x: number({ description: "Where its name stands on the chart" }),
    y: number(),
    lights: linksToMany(() => Light),
    walks: linksToMany(() => Walk),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="islands" class="island">
      <article>
        <header>
          <p class="kicker">Island</p>
          <h1>{card.title}</h1>
          <p class="lead">{card.summary}</p>
        </header>
        <figure class="profile">
          <img src={card.profile ?? ""} alt={`${card.title} in outline, seen from the sea`} />
          <figcaption>{card.profileNote}</figcaption>
        </figure>
        <div class="columns">
          <Markdown class="prose" text={card.body} />
          <aside class="particulars">
            <Chart islands={[card]} lights={card.lights} focus={focusOf(card.coast)} />
            <dl>
              <dt>People</dt>
              <dd>{card.people || "Nobody"}</dd>
              <dt>Size</dt>
              <dd>{card.area}</dd>
              <dt>Highest point</dt>
              <dd>{card.highest}</dd>
            </dl>
          </aside>
        </div>
        <Group title="Lights" cards={card.lights}>
          <div class="list">
            {card.lights.map((light) => <Embed card={light} />)}
          </div>
        </Group>
        <Group title="On foot" cards={card.walks}>
          <div class="tiles">
            {card.walks.map((walk) => <Embed card={walk} format="fitted" />)}
          </div>
        </Group>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="island-row">
      <img src={card.profile ?? ""} alt="" loading="lazy" />
      <span class="what">
        <strong>{card.title}</strong>
        <span class="summary">{card.summary}</span>
      </span>
      <span class="when">{card.people ? `${card.people} people` : "Nobody"}</span>
    </Link>
  ));

  static fitted = this.template(({ card }) => (
    <Link card={card} class="tile">
      <img src={card.profile ?? ""} alt="" loading="lazy" />
      <span class="kind">Island</span>
      <strong>{card.title}</strong>
    </Link>
  ));
}

/** Returns the square of the chart that has the coastline in it, with a margin on all sides. */
function focusOf(coast: string): [number, number, number] {
  const numbers = (coast.match(/-?\d+(\.\d+)?/g) ?? []).map(Number);
  const xs = numbers.filter((_, index) => index % 2 === 0);
  const ys = numbers.filter((_, index) => index % 2 === 1);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const side = Math.max(right - left, bottom - top, 60) + 90;
  return [(left + right - side) / 2, (top + bottom - side) / 2, side];
}
