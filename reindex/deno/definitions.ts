/** Builds the definitions of one module in the sandbox. */
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
      // If the module needs this dependency, the module fails too, and its error is reported.
    }
  }
  await loader.load(module, true);
  const failed = loader.failure(module);
  if (failed) {
    // An import may have failed first. Imports that made other imports fail come first in the list.
    const dependencies = modules.flatMap((each) => {
      const document = loader.failure(each);
      // The line belongs to the module that threw, which may be another module.
      const line = document?.module === each ? document.line : undefined;
      return document ? [{ ...document, module: each, line }] : [];
    }).slice(0, MAX_FAILED);
    throw new CardProblem({ ...failed, dependencies });
  }
  const exports = loader.exports(module);
  refs.register(module, exports);
  return base.describeModule(exports, refs);
}
