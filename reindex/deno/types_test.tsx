/**
 * Tests the TypeScript types of fields and templates. The type check of this file (`deno check`) is
 * the test. What the code does when it runs doesn't matter.
 */
import {
  Card,
  type CardOf,
  computed,
  contains,
  containsMany,
  date,
  linksTo,
  linksToMany,
  number,
  string,
} from "@realm/base";

class Person extends Card {
  static fields = { name: string(), posts: linksToMany(() => Post) };
  static embedded = this.template(({ card }) => (
    <b>{card.name} {card.posts.map((post) => post.author?.name)}</b>
  ));
}

class Address extends Card {
  static fields = { city: string() };
}

class Post extends Card {
  static fields = {
    title: string(),
    words: number(),
    published: date(),
    tags: containsMany(string()),
    author: linksTo(() => Person),
    place: contains(Address),
    places: containsMany(() => Address),
    length: computed((card) => card.title.length as number),
    shout: computed((card: { title: string }) => card.title.toUpperCase()),
    // @ts-expect-error A misspelt field is an error if the parameter's type lists the fields.
    wrong: computed((card: { title: string }) => card.titel),
  };
  static isolated = this.template(({ card, realm }) => (
    <article>
      {card.title.trim()} {card.tags.join()} {card.author?.posts[0].title} {card.place?.city}
      {card.places[0].city} {card.length.toFixed()} {card.shout.trim()} {realm.name}
      {/* @ts-expect-error A misspelt field is an error. */}
      {card.titel}
      {/* @ts-expect-error A misspelt field of a linked card is an error. */}
      {card.author?.nam}
      {/* @ts-expect-error The linked card may be missing. */}
      {card.author.name}
    </article>
  ));
}

class Special extends Post {
  static fields = { ...super.fields, price: number() };
  static isolated = this.template(({ card }) => <p>{card.title} {card.price}</p>);
}

Deno.test("the fields of a card class are the properties of its cards", () => {
  const use = (card: CardOf<typeof Special>): [string, number | null, Date | null] => [
    card.title,
    card.price,
    card.published,
  ];
  if (typeof use !== "function") throw new Error("unreachable");
});
