import {
  Card,
  containsMany,
  date,
  Embed,
  formatDate,
  image,
  Link,
  linksTo,
  linksToMany,
  Markdown,
  markdown,
  number,
  string,
} from "@realm/base";
import { Guide } from "./guide.tsx";
import { Page, Tape } from "./layout.tsx";
import { Shelf } from "./shelf.tsx";

export class Tool extends Card {
  static displayName = "Tool";
  static fields = {
    name: string(),
    number: number({ description: "Stamped on the tool and painted on its hook" }),
    summary: string(),
    body: markdown(),
    outline: image({ description: "Its shape as painted on the board" }),
    shelf: linksTo(() => Shelf),
    days: number({ description: "Length of a loan" }),
    deposit: number({ description: "Pounds" }),
    given: string({ label: "Given by" }),
    comesWith: containsMany(string()),
    loans: containsMany(date(), { description: "The dates on its card" }),
    due: date({ description: "Out until then; on the board without it" }),
    advice: linksToMany(() => Guide),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} here="tools">
      <article class="tool">
        <div class={`hook ${card.due ? "away" : ""}`}>
          <img
            src={card.outline ?? ""}
            alt={`The outline of ${card.name}`}
            width="300"
            height="300"
          />
          <Tape colour={card.shelf?.colour}>No. {card.number}</Tape>
        </div>
        <div>
          <p class="where">
            <Link card={card.shelf} />
          </p>
          <h1>{card.name}</h1>
          <p class="lead">{card.summary}</p>
          <p class="state">
            {card.due
              ? <Tape colour="red">Out until {formatDate(card.due, SHORT)}</Tape>
              : <Tape colour="green">On its hook</Tape>}
          </p>
          <Markdown text={card.body} />
          {card.comesWith.length > 0 && (
            <>
              <h2>Comes with</h2>
              <ul class="kit">{card.comesWith.map((thing) => <li>{thing}</li>)}</ul>
            </>
          )}
          {card.advice.length > 0 && <h2>Before you start</h2>}
          {card.advice.map((guide) => <Embed card={guide} />)}
        </div>
        <aside class="slip">
          <h2>Loan card</h2>
          <dl>
            <dt>Tool</dt>
            <dd>{card.number}</dd>
            <dt>Loan</dt>
            <dd>{card.days} days</dd>
            <dt>Deposit</dt>
            <dd>{card.deposit ? `£${card.deposit}` : "None"}</dd>
            <dt>Given by</dt>
            <dd>{card.given}</dd>
          </dl>
          <ol class="stamps">
            {card.loans.map((loan) => <li>{formatDate(loan, STAMP)}</li>)}
          </ol>
        </aside>
      </article>
    </Page>
  ));

  static embedded = this.template(({ card }) => (
    <Link card={card} class={`hook ${card.due ? "away" : ""}`}>
      <img src={card.outline ?? ""} alt="" width="300" height="300" loading="lazy" />
      <Tape colour={card.shelf?.colour}>{card.name}</Tape>
      <small>{card.due ? `Out until ${formatDate(card.due, SHORT)}` : `No. ${card.number}`}</small>
    </Link>
  ));

  static fitted = this.embedded;
}

const SHORT: Intl.DateTimeFormatOptions = { day: "numeric", month: "short" };
const STAMP: Intl.DateTimeFormatOptions = { day: "2-digit", month: "short", year: "numeric" };
