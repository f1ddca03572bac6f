/** A fault that doesn't keep a card from being rendered, for its author. */
export interface Warning {
  /** The key that it is about, as a path in the card's document: `author`, `films.2`. */
  key: string;
  message: string;
}

/** A file that a card shows or links to by URL. The reindex checks whether it exists. */
export interface Reference {
  key: string;
  url: string;
  kind: "image" | "link";
}
