/** Maps the positions of errors in transpiled modules back to the author's source. */

/** A line of a realm's module, counted from 1. */
export interface Position {
  module: string;
  line: number;
}

/**
 * A piece of a line of transpiled code. `column` is where the piece starts in this line. `line` is
 * the line in the source from which the piece was made. Both are counted from 0.
 */
type Segment = [column: number, line: number];

const MAP = /\n\/\/# sourceMappingURL=data:application\/json;base64,([\w+/=]+)\s*$/;
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/** These functions are saved before card code runs, so that card code can't replace them. */
const { parse } = JSON;
const decode = atob;

/** The code of the modules of realms, by public URL. */
const modules = new Map<string, string>();

export function noteModule(url: string, code: string): void {
  modules.set(url, code);
}

/** V8's description of a call. */
export interface CallSite {
  getFileName(): string | null;
  getLineNumber(): number | null;
  getColumnNumber(): number | null;
}

/** For each error, the innermost call in a realm's module that led to the error. */
const places = new WeakMap<Error, { module: string; line: number; column: number }>();

/**
 * Stores the position of the innermost call in a realm's module that led to an error. V8 reports an
 * error's call stack only once, so the position can't be found again later.
 */
export function noteCalls(error: Error, sites: CallSite[]): void {
  for (const site of sites) {
    const module = site.getFileName() ?? "";
    if (!modules.has(module)) continue;
    const [line, column] = [site.getLineNumber() ?? 1, site.getColumnNumber() ?? 1];
    places.set(error, { module, line: line - 1, column: column - 1 });
    return;
  }
}

/** The position of an error, if it is known. */
export function positionOf(error: Error): Position | undefined {
  // When `stack` is first read, V8 reports the call stack, and `noteCalls` fills `places`.
  // Card code may have forged the value of `stack`, so the value is ignored.
  void error.stack;
  const place = places.get(error);
  return place && original(place.module, place.line, place.column);
}

/** The position at which a module's code first contains a specifier in quotes. */
export function importPosition(module: string, specifier: string): Position | undefined {
  const code = modules.get(module) ?? "";
  for (const quote of ['"', "'"]) {
    const at = code.indexOf(quote + specifier + quote);
    if (at < 0) continue;
    const before = code.slice(0, at).split("\n");
    return original(module, before.length - 1, before[before.length - 1].length);
  }
}

/** The source position of a place in a module's code. `line` and `column` are counted from 0. */
function original(module: string, line: number, column: number): Position | undefined {
  const map = MAP.exec(modules.get(module) ?? "");
  // A module without a source map was not transpiled, so its code is the source.
  if (!map) return { module, line: line + 1 };
  const segments = segmentsOf(parse(decode(map[1])).mappings)[line] ?? [];
  const found = segments.findLast(([from]) => from <= column) ?? segments[0];
  return found && { module, line: found[1] + 1 };
}

/**
 * The segments of each line of transpiled code. `mappings` is a part of the source map. ECMA-426
 * specifies its format.
 */
function segmentsOf(mappings: string): Segment[][] {
  let sourceLine = 0;
  return mappings.split(";").map((line) => {
    let column = 0;
    return line.split(",").flatMap((segment): Segment[] => {
      const numbers = numbersOf(segment);
      column += numbers[0] ?? 0;
      // A segment with only one number is a piece of code that comes from no source.
      if (numbers.length < 4) return [];
      sourceLine += numbers[2];
      return [[column, sourceLine]];
    });
  });
}

/** Decodes base64 VLQ, the encoding of numbers in source maps. */
function numbersOf(segment: string): number[] {
  const numbers: number[] = [];
  let value = 0;
  let shift = 0;
  for (const character of segment) {
    const digit = DIGITS.indexOf(character);
    value += (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    numbers.push(value & 1 ? -(value >> 1) : value >> 1);
    value = shift = 0;
  }
  return numbers;
}
