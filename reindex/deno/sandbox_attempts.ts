/**
 * Attempts of card code to leave the sandbox or to change the pages of other cards.
 * `sandbox_test.ts` runs them in card modules.
 *
 * Each attempt is JavaScript in a string. An attempt in `REFUSED` must throw an error. An attempt
 * in `CHANGES` or `TEMPLATES` may end without an error, but must not change the page of a card that
 * is rendered later.
 */
import { BLOG } from "./testing.ts";

/**
 * Attempts to leave the sandbox, by kind and name. An attempt succeeds if its code ends without an
 * error.
 */
export const REFUSED: Record<string, Record<string, string>> = {
  "Node's modules": Object.fromEntries(
    [
      "node:fs",
      "node:vm",
      "node:process",
      "node:module",
      "node:worker_threads",
      "node:child_process",
      "node:http",
      "node:net",
      "node:os",
      "node:v8",
      "node:inspector",
      "node:async_hooks",
      "node:sqlite",
      "node:test",
      "node:timers",
      "fs",
      "vm",
      "process",
      "fs/promises",
      "module",
      "child_process",
      "NODE:fs",
      "node:node:fs",
    ].map((name) => [name, `return await import("${name}")`]),
  ),
  "packages": Object.fromEntries(
    [
      "npm:preact@11.2.0",
      "npm:preact",
      "npm:is-number@7.0.0",
      "jsr:@std/assert@1",
      "ses",
      "ses/lockdown",
      "markdown-it",
      "preact-render-to-string",
      "preact/hooks",
      "preact/compat",
      "preact/src/options.js",
      "react",
      "@realm/base/store.ts",
      "@realm/other",
      "#internal",
      "deno:core",
      "ext:core/mod.js",
    ].map((name) => [name, `return await import("${name}")`]),
  ),
  "modules without a realm": {
    "data": `return await import("data:text/javascript,export default 1")`,
    "data as JSON": `return await import("data:application/json,1", { with: { type: "json" } })`,
    "data, other spelling": `return await import(" DATA:text/javascript,export default 1")`,
    "blob": `return await import("blob:null/6b6a1e0a-0000-4000-8000-000000000000")`,
    "javascript": `return await import("javascript:1")`,
    "about": `return await import("about:blank")`,
    "wasm from bytes":
      `return new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))`,
    "web socket": `return await import("ws://localhost/")`,
  },
  "local files": {
    "as JSON": `return await import("file:///etc/os-release", { with: { type: "json" } })`,
    "as text": `return await import("file:///etc/hostname", { with: { type: "text" } })`,
    "as bytes": `return await import("file:///etc/hostname", { with: { type: "bytes" } })`,
    "the host": `return await import("file:///${new URL("./host.ts", import.meta.url).pathname}")`,
    "a package's JSON": `return await import("file:///node_modules/preact/package.json",
      { with: { type: "json" } })`,
    "by a path": `return await import("/etc/hostname")`,
    "the library's own modules": `return await import("http://localhost:4201/base/card.ts")`,
    "the library's own modules, without extension": `return await import("/base/context")`,
    "by many dots": `return await import("${"../".repeat(20)}etc/hostname")`,
    "through Deno": `return Deno.readTextFileSync("/etc/hostname")`,
    "the command line": `return Deno.args`,
  },
  "other hosts": {
    "loopback": `return await import("http://127.0.0.1:65000/x.js")`,
    "loopback by number": `return await import("http://2130706433/x.js")`,
    "loopback, IPv6": `return await import("http://[::1]:4201/x.js")`,
    "metadata": `return await import("http://169.254.169.254/latest/meta-data/")`,
    "another scheme": `return await import("ftp://localhost/x.js")`,
    "no scheme": `return await import("//elsewhere.invalid/x.js")`,
    "a server's endpoint": `return await import("http://localhost:4201/_metrics")`,
    "the admin": `return await import("http://localhost:4201/_admin/", { with: { type: "text" } })`,
    "with a user": `return await import("http://user@127.0.0.1:4201/_metrics")`,
    "with a password": `return await import("http://a:b@localhost:4201/luke/secret.js")`,
    "a pinned address": `return await import("http://localhost:4201/_at/x/y.js")`,
  },
  "the network": {
    "fetch": `return await fetch("http://127.0.0.1:65000/")`,
    "fetch found again": `return await (async () => {}).constructor("return fetch")()`,
    "a request": `return new XMLHttpRequest()`,
    "a web socket": `return new WebSocket("ws://127.0.0.1:65000/")`,
    "an event source": `return new EventSource("http://127.0.0.1:65000/")`,
    "a socket": `return await Deno.connect({ port: 65000 })`,
    "a channel": `return new BroadcastChannel("x")`,
    "a name": `return await Deno.resolveDns("localhost", "A")`,
    "a cache": `return await caches.open("x")`,
    "storage": `return localStorage`,
  },
  "code from strings": {
    "eval": `return eval("1 + 1")`,
    "indirect eval": `return (0, eval)("1 + 1")`,
    "Function": `return new Function("return 1")()`,
    "a function's constructor": `return (() => {}).constructor("return 1")()`,
    "an async function's constructor": `return await (async () => {}).constructor("return 1")()`,
    "a generator's constructor": `return (function* () {}).constructor("yield 1")().next()`,
    "an async generator's": `return (async function* () {}).constructor("yield 1")`,
    "Function with an import": `return await Function("return import('node:fs')")()`,
    "Reflect.construct": `return Reflect.construct(Function, ["return 1"])()`,
    "a timer": `return setTimeout("1", 0)`,
    "a Worker": `return new Worker("data:text/javascript,1", { type: "module" })`,
    "a compartment": `return new Compartment()`,
    "a realm": `return new ShadowRealm()`,
  },
  "the host": {
    "postMessage": `return postMessage({ tell: "result" })`,
    "self": `return self.postMessage`,
    "a message channel": `return new MessageChannel()`,
    "listening": `return addEventListener("message", () => {})`,
    "on the prototypes of the global scope": `let object = globalThis;
      while (object && !Object.hasOwn(object, "dispatchEvent")) object = Object.getPrototypeOf(object);
      object.dispatchEvent = () => {}; return "patched"`,
    "a property of all objects": `Object.defineProperty(Object.prototype, "data", { set() {} });
      return "shared"`,
    "closing": `return close()`,
    "stdout": `return Deno.stdout`,
    "process": `return process.stdout`,
    "Deno's inside": `return globalThis[Symbol.for("Deno.internal")].core`,
    "importScripts": `return importScripts("data:text/javascript,1")`,
    "the sandbox's own module": `return await import("./worker.ts")`,
  },
  "the environment": {
    "Deno.env": `return Deno.env.toObject()`,
    "process.env": `return process.env.SECRET_OF_THE_HOST`,
    "navigator": `return navigator.hardwareConcurrency`,
    "location": `return location.href`,
    "a process": `return new Deno.Command("id").outputSync()`,
    "a library": `return Deno.dlopen("/x.so", {})`,
    "performance": `return performance.timeOrigin`,
    "shared memory": `return new SharedArrayBuffer(8)`,
    "waiting": `return Atomics.wait(new Int32Array(1), 0, 0, 1)`,
    "randomness": `return crypto.getRandomValues(new Uint8Array(1))`,
  },
  "paths of the server": {
    "in a stack": `try { null.x } catch (e) { if (/file:|reindex|node_modules|\\/home|\\/work/
      .test(e.stack ?? "")) return e.stack } throw "nothing"`,
    "in a stack of the library": `try { markdown().read() } catch (e) {
      if (/file:|node_modules/.test(e.stack ?? "")) return e.stack } throw "nothing"`,
    "by call sites": `let sites; Error.prepareStackTrace = (_, found) => (sites = found, "");
      new Error().stack; if (sites) return sites.map((site) => site.getFileName()).join(); throw "none"`,
    "by captureStackTrace": `const o = {}; Error.captureStackTrace(o);
      if (/file:/.test(String(o.stack))) return o.stack; throw "nothing"`,
    "in import.meta": `if (import.meta.url !== "${BLOG}try.js" || import.meta.dirname ||
      import.meta.filename || import.meta.main) return JSON.stringify(import.meta); throw "public"`,
    "by resolving": `return import.meta.resolve("preact")`,
    "in an error of an import": `try { await import("file:///etc/passwd") } catch (e) {
      if (/root|reindex/.test(e.message + e.stack)) return e.message } throw "nothing"`,
  },
};

/** Attempts to change the pages of cards that are rendered later, by kind and name. */
export const CHANGES: Record<string, Record<string, string>> = {
  "the language": Object.fromEntries(
    [
      "Array.prototype.map = () => ['evil']",
      "Array.prototype.join = () => 'evil'",
      "Array.prototype.flat = () => ['evil']",
      "String.prototype.trim = () => 'evil'",
      "String.prototype.replaceAll = () => 'evil'",
      "RegExp.prototype.test = () => false",
      "RegExp.prototype[Symbol.replace] = () => 'evil'",
      "JSON.stringify = () => '\"evil\"'",
      "JSON.parse = () => ({})",
      "Object.entries = () => []",
      "Object.keys = () => []",
      "Object.prototype.toJSON = () => 'evil'",
      "Map.prototype.get = () => 'evil'",
      "Set.prototype.has = () => true",
      "WeakMap.prototype.get = () => undefined",
      "Promise.prototype.then = () => {}",
      "Symbol.prototype.toString = () => 'evil'",
      "Function.prototype.call = () => 'evil'",
      "Function.prototype.apply = () => 'evil'",
      "Number.prototype.toString = () => '666'",
      "Date.prototype.toISOString = () => 'evil'",
      "Intl.DateTimeFormat.prototype.format = () => 'evil'",
      "Object.defineProperty(Intl, 'DateTimeFormat', { value: class { format() { return 'evil' } } })",
      "URL.prototype.toString = () => 'http://evil/'",
      "Object.defineProperty(URL.prototype, 'href', { get: () => 'http://evil/' })",
      "Array.prototype[Symbol.iterator] = function* () { yield 'evil' }",
      "Object.getPrototypeOf([][Symbol.iterator]()).next = () => ({ done: true })",
      "Object.setPrototypeOf(Array.prototype, { evil: 1 })",
      "Math.imul = () => 0",
      "Object.getPrototypeOf(new Intl.Segmenter().segment('')).containing = () => 'evil'",
      "Object.getPrototypeOf(new URLSearchParams('a=1').keys()).next = () => ({ done: true })",
      "URLPattern.prototype.test = () => true",
      "atob.call = () => 'evil'",
      "Iterator.prototype.map = () => ['evil']",
      "Object.getPrototypeOf(async () => {}).evil = 1",
    ].map((code) => [code, code]),
  ),
  "the global scope": {
    "a new name": `globalThis.evil = 1`,
    "undefined": `globalThis.undefined = 1`,
    "an old name": `globalThis.String = () => "evil"`,
    "a definition": `Object.defineProperty(globalThis, "Array", { value: () => ["evil"] })`,
    "deleting": `delete globalThis.JSON`,
    "names by its prototypes": `for (let o = Object.getPrototypeOf(globalThis); o; o = Object
      .getPrototypeOf(o)) { try { o.window = {}; o.fetch = () => "evil" } catch {} }
      if (typeof window !== "undefined" || typeof fetch !== "undefined") throw new Error("got in")`,
    "its prototype": `Object.setPrototypeOf(globalThis, { document: {} })`,
    "the console": `console.log = () => "evil"`,
  },
  "Preact": {
    "options":
      `const { options } = await import("preact"); options.vnode = (v) => { v.type = "evil" }`,
    "options by name": `(await import("preact"))["options"].vnode = () => {}`,
    "Component.prototype.render": `Component.prototype.render = () => "evil"`,
    "Component.prototype.getChildContext":
      `Component.prototype.getChildContext = () => ({ evil: 1 })`,
    "Component.prototype.componentWillMount":
      `Component.prototype.componentWillMount = function () {
      this.props.children = "evil" }`,
    "Component.prototype.shouldComponentUpdate":
      `Component.prototype.shouldComponentUpdate = () => false`,
    "Fragment": `Fragment.defaultProps = { children: "evil" }`,
    "h": `h.call = () => "evil"; h.prototype = null`,
    "the runtime":
      `const jsx = await import("preact/jsx-runtime"); jsx.jsx.x = 1; jsx.jsx = () => "evil"`,
    "a namespace": `(await import("preact")).h = () => "evil"`,
  },
  "the card library": {
    "Card": `Card.isolated = () => "evil"`,
    "Card.fields": `Card.fields.title = string({ default: "evil" })`,
    "Card.template": `Card.template = () => () => "evil"`,
    "Card.prototype": `Object.defineProperty(Card.prototype, "title", { get: () => "evil" })`,
    "Card's parent": `Object.setPrototypeOf(Card, class { static isolated = () => "evil" })`,
    "Embed": `Embed.defaultProps = { card: null }`,
    "Markdown": `Markdown.prototype.render = () => "evil"`,
    "a field": `const field = string(); Object.getPrototypeOf(field).read = () => "evil";
      field.constructor.prototype.read = () => "evil"`,
    "FORMATS": `(await import("@realm/base")).FORMATS.push("evil")`,
    "Styles": `(await import("@realm/base")).Styles.prototype.head = () => "evil"`,
    "CardStore": `(await import("@realm/base")).CardStore.prototype.get = () => null`,
    "CodeRefs":
      `(await import("@realm/base")).CodeRefs.prototype.of = () => ({ module: "e", name: "E" })`,
    "RealmConfig": `(await import("@realm/base")).RealmConfig.isolated = () => "evil"`,
    "its own modules":
      `const { PlaceContext } = await import("http://localhost:4201/base/context.ts");
      PlaceContext.Provider = () => "evil"; PlaceContext.__ = "evil"`,
    "its defaults":
      `const { defaultTemplates } = await import("http://localhost:4201/base/defaults.tsx");
      defaultTemplates.isolated = () => "evil"; defaultTemplates.atom = () => "evil"`,
    "its functions": `const all = await import("http://localhost:4201/base/card.ts");
      all.titleOf.call = () => "evil"; all.titleOf = () => "evil"`,
    "a date's options": `const { formatDate } = await import("@realm/base");
      const day = { toJSON: () => "numeric", toString: () => "2-digit" };
      formatDate(new Date(0), { toJSON: () => ({ day: "numeric", month: "long", year: "numeric" }),
        weekday: "long" });
      formatDate(new Date(0), { day: { toJSON: () => "numeric" }, month: "long", year: "numeric",
        weekday: "long" }); formatDate(new Date(0), { day })`,
    "a type's fields": `const { fields } = class extends Card {}; fields.title = string();
      (await import("@realm/base")).CardsIndex.fields.title = string({ default: "evil" })`,
    "formatDate": `const { formatDate } = await import("@realm/base");
      Object.getPrototypeOf(new Intl.DateTimeFormat()).format = () => "evil"; formatDate.x = 1`,
  },
  "all reachable objects": {
    "from the global scope": `spoil(globalThis)`,
    "from the card library": `spoil(await import("@realm/base"))`,
    "from the library's modules":
      `for (const name of ["render", "store", "styles", "types", "nested",
      "context", "search", "describe", "check", "url", "fields", "helpers"]) {
        spoil(await import(\`http://localhost:4201/base/\${name}.ts\`)) }`,
    "from Preact": `spoil(await import("preact")); spoil(await import("preact/jsx-runtime"))`,
    "from the language": `spoil([[], {}, "", 1, /x/, new Map(), new Set(), new Date(0), () => {},
      async () => {}, function* () {}, new Error(), Promise.resolve(), new URL("http://a"), 1n,
      new Intl.DateTimeFormat(), Symbol.iterator, new Uint8Array(1), new WeakMap(), [].values()])`,
  },
};

/**
 * Templates that try to change the pages of cards that are rendered later. Each template is the
 * value of a card class's `static isolated`.
 */
export const TEMPLATES: Record<string, string> = {
  "its props": `(props) => { spoil(props); return null }`,
  "its card and its realm":
    `({ card, realm }) => { realm.name = "evil"; spoil(card); return null }`,
  "its component": `class extends Component { render() { spoil(this); return null } }`,
  "what it is rendered in": `class extends Component { render() {
    const seen = new Set(); const look = (o) => { if (o === null || typeof o !== "object" || seen.has(o))
      return; seen.add(o); spoil(o); for (const key of Reflect.ownKeys(o)) { try { look(o[key]) } catch {} }
    }; look(this); look(this.context); look(this.props); return null } }`,
  "the context that a page begins with": `class extends Component { render() {
    for (const held of [this.context, this.__n, ...Object.values(this)]) {
      if (held === null || typeof held !== "object") continue;
      for (const key of Object.keys(held)) { const context = held[key]?.context;
        if (context && typeof context === "object") { for (let i = 0; i < 50; i++) { try {
          context["__cC" + i] = { props: { value: "EVIL" }, sub() {} } } catch {} } } } }
    return null } }`,
  "its vnode": `function (props) { const v = h("p"); spoil(v); v.constructor = Object; return v }`,
  "linked cards":
    `({ card }) => { spoil(card.next); spoil(Object.getPrototypeOf(card.next)); return null }`,
  "cards that are embedded": `({ card }) => h("div", null, h(Embed, { card: card.next,
    get format() { spoil(card.next); return "atom" } }))`,
  "an error":
    `() => { throw { get message() { spoil(globalThis); return "evil" }, name: {}, cause: {} } }`,
  "a promise that comes later": `() => { (async () => { for (let i = 0; i < 50; i++) {
    await null; spoil(globalThis) } })(); return null }`,
};

/**
 * The source of the function `spoil`, which some attempts call. `spoil` tries to change its
 * argument and every object that the argument refers to, directly or indirectly.
 */
export const SPOIL = `
  function spoil(root, seen = new Set(), depth = 0) {
    if (root === null || (typeof root !== "object" && typeof root !== "function")) return;
    if (seen.has(root) || seen.size > 5_000 || depth > 12) return;
    seen.add(root);
    let keys = [];
    try { keys = Reflect.ownKeys(root) } catch {}
    for (const key of keys) {
      let descriptor;
      try { descriptor = Reflect.getOwnPropertyDescriptor(root, key) } catch {}
      for (const part of [descriptor?.value, descriptor?.get, descriptor?.set]) {
        spoil(part, seen, depth + 1);
      }
    }
    try { spoil(Reflect.getPrototypeOf(root), seen, depth + 1) } catch {}
    for (const key of keys) {
      for (const write of [
        () => { root[key] = () => "evil" },
        () => Reflect.defineProperty(root, key, { get: () => "evil" }),
        () => Reflect.deleteProperty(root, key),
      ]) { try { write() } catch {} }
    }
    try { root.evil = "evil" } catch {}
    try { Reflect.setPrototypeOf(root, { evil: 1 }) } catch {}
  }`;
