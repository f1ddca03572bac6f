/**
 * Removes the globals that card code doesn't need, and freezes the objects that card modules share.
 *
 * Card code runs in a Worker without permissions, so it can't access files or the network. The
 * globals for files and the network are removed nevertheless, so that attempts fail early and with
 * a clear message. Timers are removed, too. The language's own objects, Preact and the card library
 * are frozen, so that card modules can't use these objects to affect each other's pages. The
 * language's objects are frozen by the package `ses`. After a plain `Object.freeze`, assignments
 * such as `error.name = "A"` would fail, because the frozen prototype has a property `name`, too.
 */
import "ses/lockdown";
import { type CallSite, noteCalls } from "./positions.ts";

type PrepareStackTrace = (error: Error, sites: CallSite[]) => unknown;

declare const lockdown: (options: Record<string, string>) => void;
declare const harden: <T>(value: T) => T;

/**
 * The globals of the language, and others that templates may need. All other globals are removed.
 */
const KEPT = new Set(
  `Object Function Array Number parseFloat parseInt Infinity NaN undefined Boolean String Symbol Date
   Promise RegExp Error AggregateError EvalError RangeError ReferenceError SyntaxError TypeError
   URIError SuppressedError globalThis JSON Math Intl ArrayBuffer Uint8Array Int8Array Uint16Array
   Int16Array Uint32Array Int32Array BigUint64Array BigInt64Array Uint8ClampedArray Float16Array
   Float32Array Float64Array DataView Map BigInt Set Iterator WeakMap WeakSet WeakRef Proxy Reflect
   DisposableStack AsyncDisposableStack FinalizationRegistry Temporal decodeURI decodeURIComponent
   encodeURI encodeURIComponent escape unescape eval isFinite isNaN URL URLSearchParams URLPattern
   TextEncoder TextDecoder structuredClone atob btoa queueMicrotask DOMException console`.split(
    /\s+/,
  ),
);

/**
 * The names of the removed globals. If card code uses such a name, the error message explains why
 * the global is missing.
 */
export const removed = new Set<string>();

/**
 * Does the first half of the lockdown, before the card library is loaded. `port` is the connection
 * to the host. The prototypes of the port and of its events are frozen, so that card code can't use
 * them to intercept messages.
 */
export function lockDown(port: MessagePort): void {
  // The first call of `queueMicrotask` makes Deno change the global scope. Card code couldn't make
  // this first call, because the global scope is frozen by then.
  queueMicrotask(() => {});
  // An unhandled error or rejection of one card must not end the Worker during the next card.
  addEventListener("unhandledrejection", (event) => event.preventDefault());
  addEventListener("error", (event) => event.preventDefault());
  const shared = [Object.getPrototypeOf(port), MessageEvent.prototype];
  // The port keeps these methods, and all other event targets lose them. The global scope is an
  // event target. Without these methods, card code can't listen to events of the global scope.
  for (const name of ["addEventListener", "removeEventListener"]) {
    const method = Object.getOwnPropertyDescriptor(EventTarget.prototype, name)!;
    Object.defineProperty(shared[0], name, method);
    Reflect.deleteProperty(EventTarget.prototype, name);
  }
  const silent = Object.fromEntries(Object.keys(console).map((name) => [name, () => {}]));
  Object.defineProperty(globalThis, "console", { value: silent, writable: true });
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (!KEPT.has(name) && !OWN.has(name) && Reflect.deleteProperty(globalThis, name)) {
      removed.add(name);
    }
  }
  const UntamedError = Error as unknown as { prepareStackTrace?: PrepareStackTrace };
  lockdown({
    // `safe` hides stack traces, because they would show the paths of this program's files.
    errorTaming: "safe",
    errorTrapping: "none",
    unhandledRejectionTrapping: "none",
    overrideTaming: "severe",
    localeTaming: "unsafe",
    consoleTaming: "unsafe",
    evalTaming: "no-eval",
    reporting: "none",
  });
  const original = UntamedError.prepareStackTrace;
  // V8 passes the call stacks of errors to this function. The property is not writable. Otherwise
  // card code could replace the function and see the call stacks of other cards' errors.
  Object.defineProperty(UntamedError, "prepareStackTrace", {
    value: (error: Error, sites: CallSite[]) => {
      noteCalls(error, sites);
      return original?.(error, sites);
    },
    writable: false,
    configurable: false,
  });
  for (let object of shared) {
    for (; object && object !== Object.prototype; object = Object.getPrototypeOf(object)) {
      Object.freeze(object);
    }
  }
}

/** The globals that `ses` adds. They are removed in the second half of the lockdown. */
const OWN = new Set(["lockdown", "repairIntrinsics", "hardenIntrinsics", "harden"]);

/**
 * Does the second half of the lockdown, after the card library is loaded. Freezes the global scope
 * and `shared`, the objects that card modules get.
 */
export function freezeShared(...shared: unknown[]): void {
  const freeze = harden;
  for (const each of [...shared, ...withoutNames()]) freeze(each);
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (!KEPT.has(name)) Reflect.deleteProperty(globalThis, name);
  }
  const scope = globalThis as unknown as Record<string, unknown>;
  for (const name of KEPT) if (scope[name] !== globalThis) freeze(scope[name]);
  for (let object: object | null = globalThis; object; object = Object.getPrototypeOf(object)) {
    Object.freeze(object);
  }
}

/** Prototypes that card code can reach, but not through a name in the global scope. */
function withoutNames(): unknown[] {
  const segments = new Intl.Segmenter().segment("");
  const parameters = new URLSearchParams();
  return [segments, segments[Symbol.iterator](), parameters.keys(), "".matchAll(/x/g)]
    .map((each) => Object.getPrototypeOf(each));
}
