/**
 * Imports card modules in a sandbox, the Worker that runs card code. Each module is imported only
 * once, even if it fails. But after a failure with status 503, it can be imported again.
 */
import type * as library from "@realm/base";
import type { CardClass, CodeRef } from "@realm/base";
import { CardProblem, importError } from "./errors.ts";
import type { Loader } from "./loader.ts";
import type { Exports } from "./packages.ts";
import type { ErrorDocument, Tell } from "./protocol.ts";

/** `@realm/base`, as this sandbox has loaded it. */
export type Base = typeof library;

export class Modules {
  readonly #loaded = new Map<string, Exports>();
  readonly #failed: Map<string, ErrorDocument>;
  readonly #loader: Loader;
  readonly #base: Base;
  readonly #tell: (message: Tell) => void;

  /** `unavailable` has the errors of modules that hung in an earlier sandbox, keyed by module. */
  constructor(
    loader: Loader,
    base: Base,
    tell: (message: Tell) => void,
    unavailable: Record<string, ErrorDocument> = {},
  ) {
    this.#loader = loader;
    this.#base = base;
    this.#tell = tell;
    this.#failed = new Map(Object.entries(unavailable));
  }

  /**
   * Imports a module. `own` is true if the sandbox is rendering a card of this module or building
   * the module's definitions. `own` is false for all other modules, such as the module of a linked
   * card.
   */
  async load(module: string, own: boolean): Promise<void> {
    if (this.knows(module)) return;
    // If the time limit passes before the message `imported`, the host reports that this module
    // hangs.
    this.#tell({ tell: "importing", module, own });
    try {
      const { namespace } = module === "@realm/base"
        ? { namespace: this.#base as Exports }
        : await this.#loader.load(module);
      this.#loaded.set(module, namespace);
    } catch (error) {
      const document = importError(error, module);
      // Status 503 means that the reindex refuses this module to this sandbox. The reindex renders
      // the card that needs the module in another sandbox.
      if (document.status === 503) throw new CardProblem(document);
      this.#failed.set(module, document);
    }
    this.#tell({ tell: "imported" });
  }

  /** Whether a module was loaded, or has failed to load. */
  knows(module: string): boolean {
    return this.#loaded.has(module) || this.#failed.has(module);
  }

  /** The error of a module that could not be loaded. */
  failure(module: string): ErrorDocument | undefined {
    return this.#failed.get(module);
  }

  /** The exports of a loaded module. Throws a CardProblem if the module is not loaded. */
  exports(module: string): Exports {
    const exports = this.#loaded.get(module);
    if (exports) return exports;
    const document = this.#failed.get(module);
    if (document) throw new CardProblem(document);
    throw CardProblem.of(404, "Module not found", `The module ${module} was not loaded`);
  }

  /** The card class that a loaded module exports under a name. Throws a CardProblem on failure. */
  cardClass({ module, name }: CodeRef): CardClass {
    const exports = this.exports(module);
    const type = Object.hasOwn(exports, name) ? exports[name] : undefined;
    if (type === undefined) {
      const others = Object.keys(exports).join(", ") || "nothing";
      const message = `The module ${module} exports no ${
        JSON.stringify(name)
      }; it exports ${others}`;
      throw CardProblem.of(404, "Card type not found", message);
    }
    if (this.#base.isCardClass(type)) return type;
    const message = `${name} of the module ${module} is not a class that extends Card`;
    throw CardProblem.of(422, "Not a card type", message);
  }
}

/**
 * The module and name of a card's type. `url` is the card's own URL. A module that is written as a
 * relative URL is resolved against `url`.
 */
export function resolveType(
  base: Base,
  url: string,
  adoptsFrom: CodeRef | undefined,
): CodeRef {
  const { module, name } = adoptsFrom ?? {};
  if (typeof module !== "string" || typeof name !== "string") {
    const message = "meta.adoptsFrom should say which module and name the card's type has";
    throw CardProblem.of(422, "The card has no type", message);
  }
  // A name such as `@realm/base` stays as it is.
  const resolved = /^(\.{0,2}\/|https?:)/.test(module) ? base.resolveURL(module, url) : module;
  if (resolved !== null) return { module: resolved, name };
  throw CardProblem.of(422, "The card has no type", `${JSON.stringify(module)} is not a module`);
}
