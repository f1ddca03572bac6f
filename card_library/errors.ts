/** Errors that say which field of which card they are about. */

/** Something about one field of a card: a problem of its document (status 422) or of its code (500). */
export class CardError extends Error {
  constructor(
    readonly status: 422 | 500,
    readonly card: string,
    /** The path of the field inside the card's document: `addresses.0.city`. */
    readonly field: string,
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}

/** The value of a field can't be read; `cause` is the error that was thrown. */
export function fieldError(card: string, field: string, type: string, cause: unknown): CardError {
  // An error of a field about its own value needs no introduction.
  return cause instanceof WrongValue
    ? new CardError(422, card, field, cause.message)
    : new CardError(500, card, field, `The field ${field} of ${type} can't be computed`, cause);
}

/** A document holds a value that the field doesn't accept. */
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
