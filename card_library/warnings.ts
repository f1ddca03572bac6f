/** What a card is rendered in spite of, for its author to read. */
export interface Warning {
  /** The key that it is about, as a path in the card's document: `author`, `films.2`. */
  key: string;
  message: string;
}

/** What a card shows or links to by the URL of a file: whether it is there, the reindex knows. */
export interface Reference {
  key: string;
  url: string;
  kind: "image" | "link";
}
