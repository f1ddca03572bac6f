/**
 * The few assertions that the tests need. The tests don't use `node:assert`, because their type
 * check would then need the types of all of Node.
 */

export function ok(condition: unknown, message = "Expected something true"): asserts condition {
  if (!condition) throw new Error(message);
}

/** Asserts that the JSON of two values is equal, except for the order of keys. */
export function equal(actual: unknown, expected: unknown, message = "Not equal"): void {
  const [is, should] = [sorted(actual), sorted(expected)];
  ok(is === should, `${message}\n  is:     ${is}\n  should: ${should}`);
}

export function match(actual: string, pattern: RegExp, message = "No match"): void {
  ok(pattern.test(actual), `${message}: ${pattern}\n  ${actual}`);
}

export function doesNotMatch(actual: string, pattern: RegExp, message = "Match"): void {
  ok(!pattern.test(actual), `${message}: ${pattern}\n  ${actual}`);
}

function sorted(value: unknown): string {
  return JSON.stringify(
    value,
    (_key, part) =>
      typeof part === "object" && part !== null && !Array.isArray(part)
        ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => a < b ? -1 : 1))
        : part,
  ) ?? "undefined";
}
