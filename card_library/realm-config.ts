/** The type of the card in a realm's file `realm.json`. The card has the settings of the realm. */
import { Card } from "./card.ts";
import { image, markdown, string } from "./fields.ts";

export class RealmConfig extends Card {
  static displayName = "Realm settings";
  static description = "How a realm presents itself";
  static fields = {
    name: string({ description: "The name of the realm" }),
    description: markdown({ description: "What the realm is about" }),
    iconURL: image({ label: "Icon" }),
    backgroundURL: image({ label: "Background" }),
    lang: string({
      label: "Language",
      description: "The language of the realm's pages, such as `de` or `pt-BR`; `en` if empty",
    }),
    stylesheet: string({
      description: "The stylesheet of every page of the realm, in place of the default one",
    }),
  };
}
