import {
  Card,
  type CardOf,
  computed,
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
import { bearingAndDistance, positionOf } from "./chart.tsx";
import { Daymark } from "./daymark.tsx";
import { Island } from "./island.tsx";
import { Group, Page } from "./layout.tsx";
import { readCharacter, Rhythm } from "./rhythm.tsx";

export class Light extends Card {
  static displayName = "Light";
  static description = "A lighthouse, beacon or lit buoy";
  static fields = {
    title: string(),
    summary: string(),
    character: string({ description: "In chart notation: Fl(3) W 20s; Dark if it is out" }),
    elevation: number({ description: "Metres from high water to the lamp" }),
    range: number({ description: "Sea miles" }),
    height: number({ description: "Metres from base to vane" }),
    year: number({ label: "First lit" }),
    builder: string(),
    kind: string({ description: "How it is built; decides how it is drawn" }),
    bands: containsMany(string(), { description: "Colours from the top down" }),
    status: string(),
    x: number(),
    y: number(),
    labelSide: string({ description: "n, e, s or w; no label on the chart without it" }),
    island: linksTo(() => Island),
    neighbours: linksToMany(() => Light),
    stories: linksToMany(() => Card, { description: "Essays, walks and log entries" }),
    body: markdown(),
    lit: computed((card) => card.character !== "Dark", { type: "boolean" }),
    position: computed(({ x, y }) => positionOf({ x, y })),
    notation: computed(({ character, elevation, range }) =>
      notationOf({ character, elevation, range })
    ),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="lights" class="light">
      <article>
        <header class="opening">
          <div class="words">
            <p class="kicker">
              {card.island ? <Link card={card.island} /> : "Out at sea"}, {card.year}
            </p>
            <h1>{card.title}</h1>
            <p class="notation">{card.notation}</p>
            <p class="lead">{card.summary}</p>
            <Rhythm notation={card.character} />
          </div>
          <Plate light={card} />
        </header>
        <div class="columns">
          <Markdown class="prose" text={card.body} />
          <aside class="particulars">
            <h2>Particulars</h2>
            <dl>
              <dt>Position</dt>
              <dd>{card.position}</dd>
              <dt>First lit</dt>
              <dd>{card.year}, {card.builder}</dd>
              <dt>Tower</dt>
              <dd>{card.height} metres, {paintOf(card.bands)}</dd>
              <dt>Lamp above the sea</dt>
              <dd>{card.elevation} metres</dd>
              {card.lit && <dt>Range</dt>}
              {card.lit && <dd>{card.range} sea miles</dd>}
              <dt>Keeping</dt>
              <dd>{card.status}</dd>
            </dl>
            <h2>From here</h2>
            <ul class="bearings">
              {card.neighbours.map((other) => (
                <li>
                  <Link card={other} />
                  <span>{bearingAndDistance(card, other)}</span>
                </li>
              ))}
            </ul>
          </aside>
        </div>
        <Group title="Told of this light" cards={card.stories}>
          <div class="tiles">
            {card.stories.map((story) => <Embed card={story} format="fitted" />)}
          </div>
        </Group>
      </article>
    </Page>
  ));

  /** A row of the light list. */
  static embedded = this.template(({ card }) => (
    <Link card={card} class="light-row">
      <Figure light={card} />
      <span class="what">
        <strong>{card.title}</strong>
        <span class="notation">{card.notation}</span>
        <span class="summary">{card.summary}</span>
      </span>
      <span class="when">{card.year}</span>
    </Link>
  ));

  static fitted = this.template(({ card }) => (
    <Link card={card} class="tile">
      <Figure light={card} />
      <span class="kind">Light</span>
      <strong>{card.title}</strong>
      <span class="notation">{card.notation}</span>
    </Link>
  ));

  static atom = this.template(({ card }) => <Link card={card} class="light-name" />);
}

/** The text that a chart prints beside the light: `Fl(3)W.20s 52m24M`. */
function notationOf(card: { character: string; elevation: number; range: number }): string {
  if (!readCharacter(card.character)) return `Dark, ${card.elevation}m`;
  const [kind, colour, period] = card.character.split(" ");
  const separator = kind.endsWith(")") ? "" : ".";
  return `${kind}${separator}${colour}.${period ?? ""} ${card.elevation}m${card.range}M`;
}

function paintOf(bands: string[]): string {
  const colours = [...new Set(bands)];
  if (colours.length === 1) return colours[0] === "stone" ? "bare stone" : colours[0];
  return `${colours.slice(0, -1).join(", ")} and ${colours.at(-1)}`;
}

const slugOf = (card: Card) => card.id.split("/").pop() ?? "";

/** The tower at night, with a scale in metres beside it. */
function Plate({ light }: { light: CardOf<typeof Light> }) {
  const height = light.height ?? 10;
  const side = Math.max(height * 1.55, 10);
  const step = height > 20 ? 10 : height > 8 ? 5 : 2;
  const marks = Array.from({ length: Math.floor(height / step) + 1 }, (_, index) => index * step);
  const afloat = light.kind === "buoy" || light.kind === "lattice" || light.kind === "pillar" ||
    light.kind === "cardinal";
  return (
    <svg
      class="plate"
      viewBox={`${-side * 0.4} ${-side * 0.86} ${side * 0.8} ${side}`}
      role="img"
      aria-label={`${light.title} drawn to scale, ${height} metres tall, ${paintOf(light.bands)}`}
    >
      <rect class="sky" x={-side} y={-side} width={side * 2} height={side * 1.2} />
      <g class="stars">
        {[[-30, -74], [-18, -58], [24, -78], [31, -52], [-33, -38], [14, -66], [34, -69], [-9, -79]]
          .map(([x, y]) => <circle cx={x * side / 100} cy={y * side / 100} r={side / 320} />)}
      </g>
      {afloat
        ? <rect class="sea" x={-side} y={-side * 0.004} width={side * 2} height={side} />
        : (
          <path
            class="ground"
            d={`M${-side} 1 Q${-side * 0.3} ${-side * 0.012} 0 ${
              -side * 0.004
            } T${side} 1 V${side} H${-side}Z`}
          />
        )}
      <Daymark
        id={slugOf(light)}
        kind={light.kind}
        bands={light.bands}
        height={height}
        notation={light.character}
      />
      {afloat && (
        <path
          class="ripples"
          stroke-width={side / 260}
          d={`M${-side * 0.3} ${side * 0.03}h${side * 0.14}m${side * 0.05} 0h${side * 0.3}M${
            -side * 0.2
          } ${side * 0.065}h${side * 0.22}m${side * 0.04} 0h${side * 0.1}M${-side * 0.34} ${
            side * 0.1
          }h${side * 0.2}m${side * 0.1} 0h${side * 0.24}`}
        />
      )}
      <g class="scale" font-size={side / 34} stroke-width={side / 400}>
        <path d={`M${side * 0.36} 0V${-height}`} />
        {marks.map((metres) => (
          <g transform={`translate(${side * 0.36} ${-metres})`}>
            <path d={`M0 0h${-side * 0.014}`} />
            <text x={-side * 0.024} y={side * 0.011} text-anchor="end">{metres}</text>
          </g>
        ))}
      </g>
    </svg>
  );
}

/** A small picture of the tower. In all these pictures, a metre has the same length. */
function Figure({ light }: { light: CardOf<typeof Light> }) {
  return (
    <svg class="figure" viewBox="-10 -47 20 48" aria-hidden="true">
      <Daymark
        id={`${slugOf(light)}-small`}
        kind={light.kind}
        bands={light.bands}
        height={light.height ?? 10}
      />
      <path class="base" d="M-10 0H10" />
    </svg>
  );
}
