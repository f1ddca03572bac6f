/** Warns a card's author of a fault in the card's document. The card can still be rendered. */
export interface Warning {
  /** The faulty key as a path in the card's document, such as `author` or `films.2`. */
  key: string;
  message: string;
}

/**
 * The URL of an image of a card, or of a link in the card's Markdown. After the render, Python code
 * (`reindex/prerender/dead_references.py`) checks whether a file exists at the URL.
 */
export interface Reference {
  /** The field with the image or link, as a path in the card's document. */
  key: string;
  url: string;
  kind: "image" | "link";
}
