/** A warning for a card's author: the card can be rendered, but its document has a fault. */
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
