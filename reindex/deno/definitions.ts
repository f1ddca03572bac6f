/** Building the definitions of one module in the sandbox. */
import * as base from "@realm/base";
import { Modules } from "./modules.ts";
import type { DefinitionsTask, Tell } from "./protocol.ts";

export async function define(
  { module, modules }: DefinitionsTask,
  tell: (message: Tell) => void,
): Promise<Record<string, base.Definition>> {
  const loader = new Modules(tell);
  const refs = new base.CodeRefs();
  refs.register("@realm/base", base);
  for (const dependency of modules) {
    if (dependency === module) continue;
    await loader.load(dependency, false);
    try {
      refs.register(dependency, loader.exports(dependency));
    } catch {
      // If the module needs it, the module fails as well, and that is the error that counts.
    }
  }
  await loader.load(module, true);
  const exports = loader.exports(module);
  refs.register(module, exports);
  return base.describeModule(exports, refs);
}
