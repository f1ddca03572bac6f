/**
 * A card type for front pages. The page shows the cards to which the field `members` links. The
 * `index.json` of a new realm has this type.
 */
import { Card } from "./card.ts";
import { DefaultHead } from "./defaults.tsx";
import { Embed } from "./embed.tsx";
import { linksToMany, markdown, string } from "./fields.ts";
import { Markdown } from "./markdown.tsx";

export class CardsIndex extends Card {
  static displayName = "Index";
  static description = "The front page of a realm";
  static fields = {
    title: string({ description: "If empty, the page shows the realm's name" }),
    introduction: markdown(),
    members: linksToMany(() => Card, { description: "The cards on the front page" }),
  };

  static isolated = this.template(({ card, realm }) => (
    <article class="rb-card rb-isolated rb-index">
      <header class="rb-header">
        {realm.iconURL && <img class="rb-icon" src={realm.iconURL} alt="" />}
        <h1 class="rb-title">{card.title || realm.name}</h1>
      </header>
      <Markdown text={card.introduction} />
      {card.members.length > 0
        ? (
          <ul class="rb-grid">
            {card.members.map((member) => (
              <li key={member.id}>
                <Embed card={member} format="fitted" />
              </li>
            ))}
          </ul>
        )
        : card.introduction === "" && <p class="rb-empty">Nothing here yet.</p>}
    </article>
  ));

  static head = this.template(({ card, realm, format }) => (
    <DefaultHead card={card} realm={realm} format={format} title={card.title || realm.name} />
  ));
}
