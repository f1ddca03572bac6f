import {
  Card,
  Embed,
  image,
  Link,
  linksTo,
  linksToMany,
  Markdown,
  markdown,
  string,
} from "@realm/base";
import { Person } from "/demo/people/person.tsx";
import { Chart } from "./chart.tsx";
import { Essay } from "./essay.tsx";
import { Island } from "./island.tsx";
import { Page } from "./layout.tsx";
import { Light } from "./light.tsx";
import { Leaf, LogEntry } from "./log.tsx";
import { Rhythm } from "./rhythm.tsx";
import { Term } from "./term.tsx";
import { Walk } from "./walk.tsx";

export class Home extends Card {
  static displayName = "Home";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    card: image({ label: "Picture for sharing" }),
    islands: linksToMany(() => Island),
    lights: linksToMany(() => Light, { description: "Those on the chart" }),
    tonight: linksTo(() => Light),
    essays: linksToMany(() => Essay),
    walks: linksToMany(() => Walk),
    terms: linksToMany(() => Term),
    entry: linksTo(() => LogEntry),
    makers: linksToMany(() => Person),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} class="home">
      <div class="cover">
        <header>
          <h1>{card.title}</h1>
          <p class="lead">{card.summary}</p>
          <Markdown class="prose" text={card.body} />
          {card.tonight && (
            <section class="tonight">
              <h2 class="group-title">Learn one tonight</h2>
              <p>
                <Link card={card.tonight} class="name" />{" "}
                <span class="notation">{card.tonight.notation}</span>
              </p>
              <Rhythm notation={card.tonight.character} />
            </section>
          )}
        </header>
        <figure>
          <Chart islands={card.islands} lights={card.lights} />
          <figcaption>
            The Hestrays. Each magenta flare is a light; touch one to read about it. Soundings in
            metres. Drawn by {card.makers[1] ? <Link card={card.makers[1]} /> : "hand"}.
          </figcaption>
        </figure>
      </div>

      <section class="group">
        <h2 class="group-title">
          <a href={`${realm.url}essays`}>Essays</a>
        </h2>
        <div class="front-essays">
          {card.essays.map((essay) => <Embed card={essay} />)}
        </div>
      </section>

      <section class="group">
        <h2 class="group-title">
          <a href={`${realm.url}terms`}>Reading a light</a>
        </h2>
        <div class="front-terms">
          {card.terms.map((term) => <Embed card={term} />)}
        </div>
      </section>

      <div class="pair">
        <section class="group">
          <h2 class="group-title">
            <a href={`${realm.url}walks`}>On foot</a>
          </h2>
          <div class="list">
            {card.walks.map((walk) => <Embed card={walk} />)}
          </div>
        </section>
        {card.entry && (
          <section class="group">
            <h2 class="group-title">
              <a href={`${realm.url}logbook`}>From the logbook</a>
            </h2>
            <Leaf entry={card.entry} />
            <p class="more">
              <Link card={card.entry}>{card.entry.title}</Link>, at{" "}
              <Link card={card.entry.station} />
            </p>
          </section>
        )}
      </div>

      <section class="group">
        <h2 class="group-title">The islands</h2>
        <div class="front-islands">
          {card.islands.map((island) => <Embed card={island} format="fitted" />)}
        </div>
      </section>

      <section class="group">
        <h2 class="group-title">Made by</h2>
        <div class="people">
          {card.makers.map((person) => <Embed card={person} format="fitted" />)}
        </div>
      </section>
    </Page>
  ));
}
