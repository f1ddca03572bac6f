/** Errors in the documents of cards, and in the code of their types. */

/**
 * An error in one field of a card, or in another key of its document. `status` is 422 if the
 * document is wrong, and 500 if the code of the card's type fails.
 */
export class CardError extends Error {
  constructor(
    readonly status: 422 | 500,
    readonly card: string,
    /** The path of the field or key in the card's document: `addresses.0.city`. */
    readonly field: string,
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}

/** Makes the error for a field that can't be read. `cause` is the error that the field threw. */
export function fieldError(card: string, field: string, type: string, cause: unknown): CardError {
  // The message of a WrongValue already names the field.
  return cause instanceof WrongValue
    ? new CardError(422, card, field, cause.message)
    : new CardError(500, card, field, `The field ${field} of ${type} can't be computed`, cause);
}

/** The error for a value in a card's document that the field doesn't accept. */
export class WrongValue extends TypeError {
  constructor(where: string, what: string, value: unknown) {
    super(`The field ${where} should be ${what}, but it is ${shown(value)}`);
  }
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 60));
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" && value !== null ? "an object" : String(value);
}
