import {
  Card,
  type CardOf,
  date,
  formatDate,
  Link,
  linksTo,
  Markdown,
  markdown,
  string,
} from "@realm/base";
import { Page } from "./layout.tsx";
import { Light } from "./light.tsx";

export class LogEntry extends Card {
  static displayName = "Log entry";
  static description = "A page from a station's log, as it was written";
  static fields = {
    title: string(),
    summary: string(),
    station: linksTo(() => Light),
    keeper: string(),
    written: date(),
    wind: string(),
    body: markdown(),
    earlier: linksTo(() => LogEntry),
    later: linksTo(() => LogEntry),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="logbook" class="log">
      <article class="leaf">
        <header>
          <p class="kicker">
            Log of <Link card={card.station} />
          </p>
          <h1>{card.title}</h1>
          <p class="lead">{card.summary}</p>
        </header>
        <Leaf entry={card} />
        <nav class="turn" aria-label="Other entries">
          {card.earlier
            ? <Link card={card.earlier}>Earlier: {card.earlier.title}</Link>
            : <span>The first in this book</span>}
          {card.later
            ? <Link card={card.later}>Later: {card.later.title}</Link>
            : <span>The last in this book</span>}
        </nav>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class="log-row">
      <span class="when">{formatDate(card.written)}</span>
      <span class="what">
        <strong>{card.title}</strong>
        <span class="summary">{card.summary}</span>
        <span class="by">{card.keeper}, {card.station?.title}</span>
      </span>
    </Link>
  ));

  static fitted = this.template(({ card }) => (
    <Link card={card} class="tile">
      <span class="kind">Log, {formatDate(card.written, { year: "numeric" })}</span>
      <strong>{card.title}</strong>
      <span class="note">{card.keeper}</span>
    </Link>
  ));
}

/** A logbook entry, shown on ruled paper. */
export function Leaf({ entry }: { entry: CardOf<typeof LogEntry> }) {
  return (
    <div class="ruled">
      <p class="entry-head">
        <span>{formatDate(entry.written)}</span>
        <span>Wind {entry.wind}</span>
      </p>
      <Markdown text={entry.body} />
      <p class="hand">{entry.keeper}</p>
    </div>
  );
}
