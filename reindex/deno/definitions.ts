/**
 * Builds the definitions of one module in the sandbox, the Worker that runs card code. A definition
 * describes a card type that the module exports.
 */
import type { Definition } from "@realm/base";
import { CardProblem } from "./errors.ts";
import type { Loader } from "./loader.ts";
import { type Base, Modules } from "./modules.ts";
import type { DefinitionsTask, Tell } from "./protocol.ts";

const MAX_FAILED = 5;

export async function define(
  { module, modules, sources }: DefinitionsTask,
  library: { loader: Loader; base: Base },
  tell: (message: Tell) => void,
): Promise<Record<string, Definition>> {
  const { base } = library;
  library.loader.supply(sources ?? {});
  const loader = new Modules(library.loader, base, tell);
  const refs = new base.CodeRefs();
  refs.register("@realm/base", base);
  for (const dependency of modules) {
    if (dependency === module) continue;
    await loader.load(dependency, false);
    try {
      refs.register(dependency, loader.exports(dependency));
    } catch {
      // If the module needs this dependency, the module fails too, and the module's error is
      // reported.
    }
  }
  await loader.load(module, true);
  const failed = loader.failure(module);
  if (failed) {
    // The module may have failed because one of its imports failed. `modules` lists each module
    // after its own imports, so an error comes before the errors that it caused.
    const dependencies = modules.flatMap((each) => {
      const document = loader.failure(each);
      // `document.line` is a line number in `document.module`. The new document has `each` as its
      // module. If the two modules differ, the line number would be wrong, so it is left out.
      const line = document?.module === each ? document.line : undefined;
      return document ? [{ ...document, module: each, line }] : [];
    }).slice(0, MAX_FAILED);
    throw new CardProblem({ ...failed, dependencies });
  }
  const exports = loader.exports(module);
  refs.register(module, exports);
  return base.describeModule(exports, refs);
}
