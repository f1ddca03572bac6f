/**
 * Loads modules in the sandbox, in the place of Deno's own loader.
 *
 * Every module of a realm is compiled here from a text that the host was given, and every import of it,
 * static or dynamic, comes back here. So what may be imported is decided where the texts come from,
 * outside of this process; `node:`, `npm:`, `data:`, `file:` and other hosts are nothing that could be
 * asked for. Modules are known by their public URLs.
 */
// @ts-types="./vm.d.ts"
import { type Module, SourceTextModule, SyntheticModule } from "node:vm";
import { CardProblem, problemOf } from "./errors.ts";
import type { Exports } from "./packages.ts";
import type { ErrorDocument, Source, Sources } from "./protocol.ts";

type Attributes = Record<string, string | undefined>;

/** What the loader is made with. */
export interface Places {
  /** What a specifier that begins with `/` is relative to. */
  origin: string;
  /** The URL of the card library's realm, and of the module that is `@realm/base`. */
  libraryRealm: string;
  libraryModule: string;
  packagesFor: { library: Record<string, Exports>; cards: Record<string, Exports> };
  /** Texts that were not supplied so far. */
  fetch: (urls: string[]) => Promise<Sources>;
}

/** A loaded module's exports. In an object, since a namespace that exports `then` is a promise. */
export interface Loaded {
  namespace: Exports;
}

export class Loader {
  readonly #places: Places;
  readonly #sources = new Map<string, Source>();
  readonly #modules = new Map<string, Module>();
  readonly #packages: { library: Map<string, Module>; cards: Map<string, Module> };
  /** Graphs are linked one after another: they share modules. */
  #linking: Promise<unknown> = Promise.resolve();

  constructor(places: Places) {
    this.#places = places;
    this.#packages = {
      library: packageModules(places.packagesFor.library),
      cards: packageModules(places.packagesFor.cards),
    };
  }

  /** Makes texts known. What is known already stays: a module never changes while it is loaded. */
  supply(sources: Sources): void {
    for (const [url, source] of Object.entries(sources)) {
      if (!this.#sources.has(url)) this.#sources.set(url, source);
    }
  }

  /** Imports a module by its public URL. Throws a CardProblem, or what the module throws. */
  async load(url: string): Promise<Loaded> {
    const module = await this.#module(url, {});
    await this.#run(module);
    return { namespace: module.namespace as Exports };
  }

  async #run(module: Module): Promise<void> {
    const before = this.#linking;
    const linked = before.then(() => this.#link(module));
    this.#linking = linked.catch(() => {});
    await linked;
    await module.evaluate();
  }

  async #link(module: Module): Promise<void> {
    if (module.status !== "unlinked") return;
    try {
      await module.link((specifier, referrer, extra) =>
        this.#imported(specifier, referrer.identifier, extra?.attributes)
      );
    } catch (error) {
      // What was linked halfway can't be linked again; none of it has run.
      for (const [key, { status }] of this.#modules) {
        if (status !== "linked" && status !== "evaluating" && status !== "evaluated") {
          this.#modules.delete(key);
        }
      }
      throw error;
    }
  }

  async #imported(
    specifier: string,
    referrer: string,
    attributes: Attributes = {},
  ): Promise<Module> {
    const { libraryRealm, libraryModule } = this.#places;
    const packages = referrer.startsWith(libraryRealm)
      ? this.#packages.library
      : this.#packages.cards;
    const named = packages.get(specifier);
    if (named) return named;
    try {
      const url = specifier === "@realm/base" ? libraryModule : this.#resolve(specifier, referrer);
      return await this.#module(url, attributes);
    } catch (error) {
      throw ofImporter(error, referrer);
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

  async #module(url: string, attributes: Attributes): Promise<Module> {
    const source = await this.#source(url);
    if ("redirect" in source) return await this.#module(source.redirect, attributes);
    if ("error" in source) throw new CardProblem(source.error);
    const type = attributes.type ?? "module";
    const key = type === "module" ? url : `${type} ${url}`;
    let module = this.#modules.get(key);
    if (!module) {
      module = "data" in source || type !== "module"
        ? dataModule(url, type, "data" in source ? source.data : source.code)
        : this.#compiled(url, source.code);
      this.#modules.set(key, module);
    }
    return module;
  }

  async #source(url: string): Promise<Source> {
    let source = this.#sources.get(url);
    if (!source) {
      const found = await this.#places.fetch([url]);
      source = found[url] ?? { error: unanswered(url) };
      // What is rendered apart is asked for by each card that leads to it.
      if (!("error" in source && source.error.status === 503)) this.supply(found);
    }
    return source;
  }

  #compiled(url: string, code: string): SourceTextModule {
    try {
      return this.#compile(url, code);
    } catch (error) {
      const message = `${error instanceof Error ? error.message : error} (in ${url})`;
      throw CardProblem.of(406, "Syntax error", message);
    }
  }

  #compile(url: string, code: string): SourceTextModule {
    return new SourceTextModule(code, {
      identifier: url,
      initializeImportMeta: (meta: ImportMeta) => {
        meta.url = url;
      },
      importModuleDynamically: async (specifier, _, given) => {
        try {
          const module = await this.#imported(specifier, url, given);
          await this.#run(module);
          return module;
        } catch (error) {
          throw problemOf(error);
        }
      },
    });
  }
}

/** What is not there or not allowed is wrong in the module that imports it. */
function ofImporter(error: unknown, importer: string): unknown {
  if (!(error instanceof CardProblem)) return error;
  const { status, message } = error.document;
  if (status !== 403 && status !== 404) return error;
  const told = `${message} (imported by ${importer})`;
  return new CardProblem({ ...error.document, message: told, module: importer });
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
  const message = `${url} is not a module; data is imported with { type: "json" } or "text"`;
  throw CardProblem.of(422, "Not a module", message);
}

function unanswered(url: string): ErrorDocument {
  return { status: 500, title: "Import failed", message: `${url} was not answered`, causes: [] };
}
