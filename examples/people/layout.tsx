/** The frame around every page of the directory. */
import type { RealmInfo } from "@realm/base";
import type { ComponentChildren } from "preact";

export function Page(
  { realm, inside = true, children }: {
    realm: RealmInfo;
    inside?: boolean;
    children?: ComponentChildren;
  },
) {
  return (
    <div class="row-page">
      <header class="row-head">
        <a href={realm.url}>{inside ? "← Harbour Row" : "Harbour Row"}</a>
        <span>Sandsay, Great Hestray</span>
      </header>
      <main>{children}</main>
      <footer class="row-foot">
        Eight doors, three landings and one kettle. Knock, or call from the street.
      </footer>
    </div>
  );
}
