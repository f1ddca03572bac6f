/** The frame around every page of the library, and the parts that its pages share. */
import type { RealmInfo } from "@realm/base";
import type { ComponentChildren } from "preact";

const PAGES = [
  ["tools", "Tools"],
  ["evenings", "Evenings"],
  ["advice", "Advice"],
  ["joining", "Joining"],
];

export function Page(
  { realm, here, children }: { realm: RealmInfo; here?: string; children?: ComponentChildren },
) {
  return (
    <>
      <header class="board-head">
        <a class="name" href={realm.url}>
          Cutler Street <span>Tool Library</span>
        </a>
        <nav aria-label="Pages">
          {PAGES.map(([path, label]) => (
            <a href={realm.url + path} aria-current={here === path ? "page" : undefined}>{label}</a>
          ))}
        </nav>
      </header>
      <main>
        {children}
        {here && (
          <p class="back">
            <a href={realm.url + here}>
              <span aria-hidden="true">←</span> Back to {PAGES.find(([path]) => path === here)?.[1]}
            </a>
          </p>
        )}
      </main>
      <footer>
        <p>
          <strong>Open</strong>{" "}
          Wednesday 5 to 8, Saturday 9 to 1. The arch behind 14 Cutler Street, under the railway.
          Ring twice; the planer is loud.
        </p>
      </footer>
    </>
  );
}

/** A strip of embossed label tape. */
export function Tape(
  { colour = "black", children }: { colour?: string; children?: ComponentChildren },
) {
  return <span class={`tape ${colour}`}>{children}</span>;
}
