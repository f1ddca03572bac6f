/** The frame around every page of the guide: chart border, masthead, colophon, and a link back. */
import type { RealmInfo } from "@realm/base";
import type { ComponentChildren } from "preact";

interface PageProps {
  realm: RealmInfo;
  /** The section that the page belongs to; its entry in the navigation is marked. */
  here?: string;
  /**
   * Whether this is a section's own page, such as the page "Lights". A section's own page ends with
   * a link to the front page. Every other page of the section ends with a link to the section.
   */
  index?: boolean;
  class?: string;
  children?: ComponentChildren;
}

const SECTIONS = [
  ["lights", "Lights"],
  ["islands", "Islands"],
  ["walks", "Walks"],
  ["essays", "Essays"],
  ["terms", "Terms"],
  ["logbook", "Logbook"],
];

export function Page({ realm, here, index = false, class: name, children }: PageProps) {
  return (
    <div class={`sheet ${name ?? ""}`}>
      <a class="skip" href="#content">Skip to the page</a>
      <header class="masthead">
        <a class="title" href={realm.url}>Night Marks</a>
        <nav aria-label="Sections">
          {SECTIONS.map(([path, label]) => (
            <a href={realm.url + path} aria-current={here === path ? "page" : undefined}>{label}</a>
          ))}
        </nav>
      </header>
      <main id="content">{children}</main>
      <footer class="colophon">
        {here && <Back realm={realm} to={index ? "" : here} />}
        <p>
          <a href={realm.url}>Night Marks</a>, a field guide to the lights of the Hestrays.{" "}
          <a href={`${realm.url}about`}>About this guide</a>.
        </p>
        <p class="warning">Not to be used for navigation.</p>
      </footer>
    </div>
  );
}

function Back({ realm, to }: { realm: RealmInfo; to: string }) {
  const label = SECTIONS.find(([path]) => path === to)?.[1] ?? "Home";
  return (
    <p class="back">
      <a href={realm.url + to}>
        <span aria-hidden="true">←</span> {label}
      </a>
    </p>
  );
}

/** A group of cards under a heading. Renders nothing if `cards` is empty. */
export function Group(
  { title, cards, children }: { title: string; cards?: unknown[]; children?: ComponentChildren },
) {
  if (cards && cards.length === 0) return null;
  return (
    <section class="group">
      <h2 class="group-title">{title}</h2>
      {children}
    </section>
  );
}
