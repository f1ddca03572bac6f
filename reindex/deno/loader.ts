/**
 * Loads modules in the sandbox, the Worker that runs card code, in place of Deno's own loader.
 *
 * The loader compiles every module of a realm from its text, and handles all imports of the module,
 * static or dynamic. As import specifiers, it accepts paths, `http:` and `https:` URLs, and the
 * names of a few packages. It refuses all others, such as `node:fs`, `npm:preact`, and URLs with
 * `data:` or `file:`. The loader itself reads no URL. The reindex, which runs in another process,
 * supplies the texts and decides which URLs may be imported. Modules are identified by their public
 * URLs.
 */
// @ts-types="./vm.d.ts"
import { type Module, SourceTextModule, SyntheticModule } from "node:vm";
import { CardProblem, problemOf } from "./errors.ts";
import type { Exports } from "./packages.ts";
import { importPosition, noteModule } from "./positions.ts";
import type { ErrorDocument, Source, Sources } from "./protocol.ts";

type Attributes = Record<string, string | undefined>;

/** The options of the loader. */
export interface Places {
  /** Specifiers that begin with `/` are relative to this origin. */
  origin: string;
  /** The URL of the card library's realm, and the URL of the module that is `@realm/base`. */
  libraryRealm: string;
  libraryModule: string;
  packagesFor: { library: Record<string, Exports>; cards: Record<string, Exports> };
  /**
   * Requests sources that were not supplied before. `dynamic` is true if card code imports them
   * with `import()`, and so could continue without them.
   */
  fetch: (urls: string[], dynamic: boolean) => Promise<Sources>;
}

interface File {
  file: string;
  source: Extract<Source, { code: string } | { data: string }>;
}

const OWN_MODULES = "Import the card library as @realm/base, not by the URL of one of its modules";

/**
 * The exports of a loaded module. They are wrapped in an object, because `await` would call an
 * export with the name `then`.
 */
export interface Loaded {
  namespace: Exports;
}

export class Loader {
  readonly #places: Places;
  readonly #sources = new Map<string, Source>();
  readonly #modules = new Map<string, Module>();
  readonly #packages: { library: Map<string, Module>; cards: Map<string, Module> };
  readonly #imports = new Map<Module, Set<Module>>();
  /** The modules that have begun to run. */
  readonly #entered = new Set<Module>();
  readonly #frozen = new Set<Module>();
  readonly #exporters = new WeakMap<object, string>();
  /**
   * Settles when no module is being linked or waits to be linked. Two modules can have the same
   * imports, so they are never linked at the same time.
   */
  #linking: Promise<unknown> = Promise.resolve();

  constructor(places: Places) {
    this.#places = places;
    this.#packages = {
      library: packageModules(places.packagesFor.library),
      cards: packageModules(places.packagesFor.cards),
    };
  }

  /**
   * Adds sources. Keeps the sources that are already known, because a loaded module never changes.
   */
  supply(sources: Sources): void {
    for (const [url, source] of Object.entries(sources)) {
      if (!this.#sources.has(url)) this.#sources.set(url, source);
    }
  }

  /**
   * Imports a module by its public URL. Throws a CardProblem, or the error that the module throws.
   */
  async load(url: string): Promise<Loaded> {
    const module = await this.#run(() => this.#module(url, {}));
    return { namespace: module.namespace as Exports };
  }

  /** The URL of the module that first exported a class or function; undefined if there is none. */
  exporterOf(exported: object): string | undefined {
    return this.#exporters.get(exported);
  }

  /**
   * Links the module that `find` returns, and evaluates it. `find` is called only when no other
   * module is being linked. Otherwise the other module could fail to link after the call, and
   * `#link` could then remove the found module from `#modules`.
   */
  async #run(find: () => Promise<Module>): Promise<Module> {
    const linked = this.#linking.then(async () => {
      const module = await find();
      await this.#link(module);
      return module;
    });
    this.#linking = linked.catch(() => {});
    const module = await linked;
    await this.#evaluate(module, new Set());
    return module;
  }

  async #link(module: Module): Promise<void> {
    if (module.status !== "unlinked") return;
    try {
      await module.link(async (specifier, referrer, { attributes }) => {
        const imported = await this.#imported(specifier, referrer.identifier, attributes);
        this.#importsOf(referrer).add(imported);
        return imported;
      });
    } catch (error) {
      // Partly linked modules can't be linked again, so they are removed. These modules have never
      // run, so no card has used them.
      const graph = this.#graph(module);
      for (const [key, each] of this.#modules) {
        const whole = each.status === "linked" || this.#entered.has(each);
        if (graph.has(each) && !whole) this.#modules.delete(key);
      }
      throw error;
    }
  }

  /**
   * Evaluates a module after the modules that it imports. Freezes its exported classes at once, so
   * that the modules that import it can't change them.
   */
  async #evaluate(module: Module, seen: Set<Module>): Promise<void> {
    if (seen.has(module)) return;
    seen.add(module);
    for (const imported of this.#importsOf(module)) await this.#evaluate(imported, seen);
    this.#entered.add(module);
    await module.evaluate();
    if (!this.#frozen.has(module)) {
      this.#frozen.add(module);
      for (const exported of Object.values(module.namespace)) {
        // A re-exported class or function belongs to the module that exported it first.
        if (typeof exported === "function" && !this.#exporters.has(exported)) {
          this.#exporters.set(exported, module.identifier);
        }
        freezeClass(exported);
      }
    }
  }

  #importsOf(module: Module): Set<Module> {
    let imports = this.#imports.get(module);
    if (!imports) this.#imports.set(module, imports = new Set());
    return imports;
  }

  #graph(module: Module, found = new Set<Module>()): Set<Module> {
    if (found.has(module)) return found;
    found.add(module);
    for (const imported of this.#importsOf(module)) this.#graph(imported, found);
    return found;
  }

  async #imported(
    specifier: string,
    referrer: string,
    attributes: Attributes = {},
    dynamic = false,
  ): Promise<Module> {
    const { libraryRealm, libraryModule } = this.#places;
    const packages = referrer.startsWith(libraryRealm)
      ? this.#packages.library
      : this.#packages.cards;
    const named = packages.get(specifier);
    if (named) return named;
    try {
      const url = specifier === "@realm/base" ? libraryModule : this.#resolve(specifier, referrer);
      if (url.startsWith(libraryRealm) && packages === this.#packages.cards) {
        const { file } = await this.#file(url, dynamic);
        if (file !== libraryModule) throw CardProblem.of(403, "Import refused", OWN_MODULES);
      }
      return await this.#module(url, attributes, dynamic);
    } catch (error) {
      throw ofImporter(error, referrer, specifier);
    }
  }

  #resolve(specifier: string, referrer: string): string {
    if (/^(\.{0,2}\/|https?:\/\/)/.test(specifier)) {
      const base = specifier.startsWith("/") ? this.#places.origin : referrer;
      const url = URL.canParse(specifier, base) ? new URL(specifier, base) : null;
      if (url) return url.origin + url.pathname;
    }
    const names = ["@realm/base", ...this.#packages.cards.keys()].join(", ");
    const message = `${JSON.stringify(specifier)} can't be imported, only modules of realms ` +
      `(./, ../, / or http) and ${names}`;
    throw CardProblem.of(403, "Import refused", message);
  }

  async #module(url: string, attributes: Attributes, dynamic = false): Promise<Module> {
    const { file, source } = await this.#file(url, dynamic);
    const type = attributes.type ?? "module";
    const key = type === "module" ? file : `${type} ${file}`;
    let module = this.#modules.get(key);
    if (!module) {
      module = "data" in source || type !== "module"
        ? dataModule(file, type, "data" in source ? source.data : source.code)
        : this.#compiled(file, source.code);
      this.#modules.set(key, module);
    }
    return module;
  }

  /** The file at a URL. Follows redirects. */
  async #file(url: string, dynamic: boolean): Promise<File> {
    let source = this.#sources.get(url);
    if (!source) {
      const found = await this.#places.fetch([url], dynamic);
      source = found[url] ?? { error: unanswered(url) };
      // A 503 error isn't stored, so that each card that needs the module requests it. The reindex
      // then renders this card in another sandbox.
      if (!("error" in source && source.error.status === 503)) this.supply(found);
    }
    if ("redirect" in source) return await this.#file(source.redirect, dynamic);
    if ("error" in source) throw new CardProblem(source.error);
    return { file: url, source };
  }

  #compiled(url: string, code: string): SourceTextModule {
    if (!url.startsWith(this.#places.libraryRealm)) noteModule(url, code);
    try {
      return this.#compile(url, code);
    } catch (error) {
      const message = `${error instanceof Error ? error.message : error} (in ${url})`;
      throw CardProblem.of(406, "Syntax error", message);
    }
  }

  #compile(url: string, code: string): SourceTextModule {
    const module = new SourceTextModule(code, {
      identifier: url,
      initializeImportMeta: (meta: ImportMeta) => {
        meta.url = url;
      },
      importModuleDynamically: async (specifier, _, given) => {
        try {
          return await this.#run(() => this.#imported(specifier, url, given, true));
        } catch (error) {
          throw problemOf(error);
        }
      },
    });
    // For a `SourceTextModule`, Deno supports only the import phase `evaluation`. At another phase,
    // such as that of `import source`, Deno would crash.
    const { moduleRequests } = module as unknown as { moduleRequests: { phase: string }[] };
    const odd = moduleRequests.find(({ phase }) => phase !== "evaluation");
    if (odd) throw new SyntaxError(`import ${odd.phase} is not supported`);
    return module;
  }
}

/** Adds the importing module and the import's line to the error of a missing or refused module. */
function ofImporter(error: unknown, importer: string, specifier: string): unknown {
  if (!(error instanceof CardProblem)) return error;
  const { status, message } = error.document;
  if (status !== 403 && status !== 404) return error;
  const told = `${message} (imported by ${importer})`;
  const place = importPosition(importer, specifier) ?? { module: importer };
  return new CardProblem({ ...error.document, message: told, ...place });
}

/** Freezes a class, so that modules that import the class can't change the pages of its cards. */
function freezeClass(exported: unknown): void {
  if (typeof exported !== "function") return;
  Object.freeze(exported);
  if (typeof exported.prototype === "object") Object.freeze(exported.prototype);
  const fields = Object.getOwnPropertyDescriptor(exported, "fields")?.value;
  if (typeof fields === "object" && fields !== null) {
    Object.freeze(fields);
    for (const field of Object.values(fields)) Object.freeze(field);
  }
}

function packageModules(packages: Record<string, Exports>): Map<string, Module> {
  return new Map(
    Object.entries(packages).map(([name, exports]) => [name, syntheticModule(name, exports)]),
  );
}

function syntheticModule(name: string, exports: Exports): SyntheticModule {
  const module = new SyntheticModule(Object.keys(exports), () => {
    for (const [key, value] of Object.entries(exports)) module.setExport(key, value);
  }, { identifier: name });
  return module;
}

function dataModule(url: string, type: string, data: string): SyntheticModule {
  if (type === "text") return syntheticModule(url, { default: data });
  if (type === "json") return syntheticModule(url, { default: JSON.parse(data) });
  const message = `${url} is not a module. Import data with { type: "json" } or { type: "text" }`;
  throw CardProblem.of(422, "Not a module", message);
}

function unanswered(url: string): ErrorDocument {
  const message = `There was no answer to the request for ${url}`;
  return { status: 500, title: "Import failed", message, causes: [] };
}
