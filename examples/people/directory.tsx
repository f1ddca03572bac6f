import {
  Card,
  type CardOf,
  Embed,
  linksToMany,
  Markdown,
  markdown,
  string,
  urlOf,
} from "@realm/base";
import { Page } from "./layout.tsx";
import { Person } from "./person.tsx";
import { Place } from "./place.tsx";

export class Directory extends Card {
  static displayName = "Directory";
  static fields = {
    title: string(),
    summary: string(),
    body: markdown(),
    people: linksToMany(() => Person),
    places: linksToMany(() => Place),
  };

  static isolated = this.template(({ card, realm }) => (
    <Page realm={realm} inside={false}>
      <h1 class="sign">{card.title}</h1>
      <div class="terrace">
        {card.people.map((person, index) => <House person={person} tall={index % 3 === 1} />)}
      </div>
      <div class="intro">
        <Markdown text={card.body} />
      </div>
      <div class="person-rows">
        {card.people.map((person) => <Embed card={person} />)}
      </div>
      <h2>Where they work</h2>
      <div class="places">
        {card.places.map((place) => <Embed card={place} />)}
      </div>
    </Page>
  ));
}

/** One house of the terrace, its door in the colour of the person behind it. */
function House({ person, tall }: { person: CardOf<typeof Person>; tall: boolean }) {
  const eaves = tall ? 44 : 62;
  return (
    <a class="house" href={urlOf(person)} aria-label={`No. ${person.door}, ${person.name}`}>
      <svg viewBox="0 0 100 200" aria-hidden="true">
        <path class="chimney" d={`M70 ${eaves - 44}h16v40h-16z`} />
        <path class="roof" d={`M-1 ${eaves} L8 ${eaves - 30} H92 L101 ${eaves}Z`} />
        <rect class="wall" x="0" y={eaves} width="100" height={200 - eaves} />
        <rect class="pane" x="14" y={eaves + 16} width="26" height="32" />
        <rect class="pane" x="60" y={eaves + 16} width="26" height="32" />
        <path
          class="bars"
          d={`M27 ${eaves + 16}v32M14 ${eaves + 32}h26M73 ${eaves + 16}v32M60 ${eaves + 32}h26`}
        />
        <rect class="pane" x="56" y="138" width="32" height="34" />
        <path class="bars" d="M72 138v34M56 155h32" />
        <rect class="surround" x="11" y="128" width="36" height="72" />
        <rect x="14" y="132" width="30" height="68" fill={person.colour} />
        <path class="panels" d="M19 140h8v22h-8zM31 140h8v22h-8zM19 170h8v24h-8zM31 170h8v24h-8z" />
        <circle class="knob" cx="40" cy="167" r="1.8" />
        <path class="step" d="M8 196h42v4h-42z" />
        <text x="29" y="124">{person.door}</text>
      </svg>
      <span>{person.name}</span>
    </a>
  );
}
