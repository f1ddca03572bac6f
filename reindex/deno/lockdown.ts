/**
 * Takes away what card code has no use for, before any of it runs.
 *
 * The Worker's permissions are what keeps files and network closed. This makes attempts fail early and
 * with a clear message, keeps output free of timers and of chance, and keeps the way to the host out of
 * reach of the cards that a Worker renders later.
 */

/** The language itself, and what pure templates may need. All else is removed. */
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

/** What was taken away here: an error that names it is explained to the card's author. */
export const removed = new Set<string>();

/**
 * `port` is the way to the host. Nothing can listen in on it: its prototypes are frozen, and so are those
 * of the events that it makes, which lead to it; a property that all objects share could be set by any.
 */
export function lockDown(port: MessagePort): void {
  // An unhandled rejection of one card must not end the Worker under the next.
  addEventListener("unhandledrejection", (event) => event.preventDefault());
  addEventListener("error", (event) => event.preventDefault());
  for (let object of [Object.getPrototypeOf(port), MessageEvent.prototype]) {
    for (; object && object !== Object.prototype; object = Object.getPrototypeOf(object)) {
      Object.freeze(object);
    }
  }
  Object.preventExtensions(Object.prototype);
  const silent = Object.fromEntries(Object.keys(console).map((name) => [name, () => {}]));
  Object.defineProperty(globalThis, "console", { value: silent, writable: true });
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (!KEPT.has(name) && Reflect.deleteProperty(globalThis, name)) removed.add(name);
  }
}
