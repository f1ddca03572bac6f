/** The types of the part of `node:vm` that `loader.ts` uses, as Deno implements it. */
export type Status = "unlinked" | "linking" | "linked" | "evaluating" | "evaluated" | "errored";

export type Module = SourceTextModule | SyntheticModule;

declare class AnyModule {
  readonly identifier: string;
  readonly status: Status;
  readonly namespace: object;
  link(
    linker: (
      specifier: string,
      referrer: Module,
      extra: { attributes: ImportAttributes },
    ) => Promise<Module>,
  ): Promise<void>;
  evaluate(): Promise<void>;
}

export class SourceTextModule extends AnyModule {
  readonly moduleRequests: readonly {
    specifier: string;
    phase: "source" | "evaluation" | "defer";
  }[];
  constructor(code: string, options: {
    identifier: string;
    initializeImportMeta: (meta: ImportMeta) => void;
    importModuleDynamically: (
      specifier: string,
      referrer: Module,
      attributes: ImportAttributes,
    ) => Promise<Module>;
  });
}

export class SyntheticModule extends AnyModule {
  constructor(exports: string[], evaluate: () => void, options: { identifier: string });
  setExport(name: string, value: unknown): void;
}
