/** Warns a card's author of a fault in the card's document. The card can still be rendered. */
export interface Warning {
  /** The faulty key, as a path in the card's document: `author`, `films.2`. */
  key: string;
  message: string;
}

/** A file that a card shows or links to by URL. The reindex checks whether the file exists. */
export interface Reference {
  key: string;
  url: string;
  kind: "image" | "link";
}
