/**
 * Helpers for the tests of the prerenderer, a Deno process that renders cards. In the tests, these
 * helpers take the place of the reindex, the Python code that starts and uses prerenderers. The
 * helpers start `host.ts`, the main program, with the same permissions as in production.
 */
import type { CardDocument } from "@realm/base";
import type {
  CardsTask,
  DefinitionsTask,
  Documents,
  ErrorDocument,
  Library,
  Order,
  RenderedCard,
  Request,
  Response as HostResponse,
  Result,
  Source,
  Sources,
  Supply,
} from "./protocol.ts";

const ROOT = new URL("../../", import.meta.url);
const DENO_DIR = await Deno.makeTempDir({ prefix: "prerender-test-" });
addEventListener("unload", () => Deno.removeSync(DENO_DIR, { recursive: true }));

export const BASE_URL = "http://localhost:4201/base/";
export const BLOG = "http://localhost:4201/luke/blog/";
export const PEOPLE = "http://localhost:4201/mango/people/";
export const NONCE = "nonce-that-card-code-never-learns:";

/** The texts of files, by public URL. For a TypeScript module, the text is JavaScript. */
export type Files = Record<string, string>;

/**
 * The source at a URL, as the reindex would send it to the host. A file with the text "406" stands
 * for a module that can't be transpiled.
 */
function sourceOf(url: string, files: Files): Source {
  if (url in files) {
    if (files[url] === "406") return refused(url, 406, "The module can't be transpiled", "no TSX");
    return /\.(tsx|ts|jsx|js)$/.test(url) ? { code: files[url] } : { data: files[url] };
  }
  for (const extension of [".tsx", ".ts", ".jsx", ".js"]) {
    if (url + extension in files) return { redirect: url + extension };
  }
  return refused(url, 404, "Module not found", `There is no module ${url}`);
}

/**
 * The sources of files, by URL. A `.js` file is listed twice, under its URL with and without the
 * extension.
 */
export function sourcesOf(files: Files): Sources {
  const urls = Object.keys(files).flatMap((url) => [url, url.replace(/\.js$/, "")]);
  return Object.fromEntries(urls.map((url) => [url, sourceOf(url, files)]));
}

function refused(module: string, status: number, title: string, message: string): Source {
  return { error: { status, title, message, causes: [], module } };
}

/** The transpiled modules of the card library, by public URL. */
async function transpiledBase(): Promise<Files> {
  const names = [...Deno.readDirSync(new URL("card_library/", ROOT))].map((entry) => entry.name)
    .filter((name) => /\.tsx?$/.test(name) && !name.includes("_test."));
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["transpile", "--outdir", DENO_DIR, ...names.map((name) => `card_library/${name}`)],
    cwd: ROOT,
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return Object.fromEntries(names.map((name) => {
    const js = `${DENO_DIR}/card_library/${name.replace(/\.tsx?$/, ".js")}`;
    return [BASE_URL + name, Deno.readTextFileSync(js)];
  }));
}

const BASE_FILES = await transpiledBase();
const LIBRARY: Library = {
  origin: new URL(BASE_URL).origin,
  realm: BASE_URL,
  module: `${BASE_URL}mod.ts`,
  sources: Object.fromEntries(Object.entries(BASE_FILES).map(([url, code]) => [url, { code }])),
};

/** A response of the host, together with the `Result` in the next line if there is one. */
export type Answer = HostResponse & Partial<Result>;
export type CardResponse =
  & Extract<HostResponse, { type: "card" }>
  & (RenderedCard | { error: ErrorDocument });

export interface Run {
  responses: Answer[];
  stdout: string;
  /** The modules that the host requested. */
  asked: string[];
  /** The exit code of the last process. */
  code: number;
  /** The number of host processes that the task needed. */
  processes: number;
}

/**
 * Starts a host process as the reindex does, and sends it a request, an order and a task. The task
 * is sent without linked cards, so that the host has to request them.
 */
export async function startHost(
  task: CardsTask | DefinitionsTask,
  timeLimitMs = 20_000,
  unavailable: Record<string, ErrorDocument> = {},
): Promise<Deno.ChildProcess & { writer: WritableStreamDefaultWriter<Uint8Array> }> {
  const process = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-lock",
      "--no-config",
      "--no-check",
      "--no-npm",
      "--no-remote",
      "--unstable-worker-options",
      "--import-map=reindex/deno/import_map.json",
      "--allow-read=reindex/deno,node_modules",
      "--v8-flags=--max-old-space-size=256,--disallow-code-generation-from-strings",
      "reindex/deno/host.ts",
    ],
    cwd: ROOT,
    env: { DENO_DIR, SECRET_OF_THE_HOST: "secret" },
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const request: Request = { nonce: NONCE, timeLimitMs, library: LIBRARY };
  const writer = process.stdin.getWriter();
  await writer.write(line(request));
  await giveTask(writer, task, unavailable);
  return Object.assign(process, { writer });
}

export async function giveTask(
  writer: WritableStreamDefaultWriter<Uint8Array>,
  task: CardsTask | DefinitionsTask,
  unavailable: Record<string, ErrorDocument> = {},
): Promise<void> {
  const order: Order = {
    unavailable,
    ...task.type === "cards" ? { cards: task.cards.map(({ url }) => url) } : {},
  };
  await writer.write(line(order));
  await writer.write(line({ ...task, linked: {} }));
}

export function line(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value) + "\n");
}

/**
 * Runs a task to its end as the reindex does. When a host answers `stopped`, a new host process
 * renders the remaining cards.
 */
export async function run(
  files: Files,
  task: CardsTask | DefinitionsTask,
  timeLimitMs?: number,
): Promise<Run> {
  const answer: Run = { responses: [], stdout: "", asked: [], code: 0, processes: 0 };
  let unavailable: Record<string, ErrorDocument> = {};
  for (;;) {
    const { stdout, code } = await runOnce(files, task, timeLimitMs, unavailable);
    const responses = responsesIn(stdout);
    answer.responses.push(...responses);
    answer.stdout += stdout;
    answer.code = code;
    answer.processes++;
    answer.asked.push(...responses.flatMap((one) => one.type === "needs" ? one.modules : []));
    const last = responses.at(-1);
    if (last?.type !== "stopped" || task.type !== "cards") return answer;
    const answers = responses.filter(({ type }) => type !== "needs");
    const learned = Object.keys(last.unavailable).length > Object.keys(unavailable).length;
    if (answers.length === 1 && !learned) throw new Error("The host stopped without a result");
    unavailable = last.unavailable;
    const answered = new Set(responses.map((one) => one.type === "card" ? one.url : null));
    task = { ...task, cards: task.cards.filter(({ url }) => !answered.has(url)) };
  }
}

/**
 * Runs a task in one process, and supplies documents and modules when the host needs them. Stdin
 * stays open until the task ends, because the host exits when stdin is closed.
 */
export async function runOnce(
  files: Files,
  task: CardsTask | DefinitionsTask,
  timeLimitMs?: number,
  unavailable?: Record<string, ErrorDocument>,
): Promise<{ stdout: string; code: number }> {
  const host = await startHost(task, timeLimitMs, unavailable);
  const linked: Documents = task.type === "cards" ? task.linked ?? {} : {};
  let stdout = "";
  let answered = 0;
  for await (const part of host.stdout.pipeThrough(new TextDecoderStream())) {
    stdout += part;
    const asked = responsesIn(stdout).filter((response) => response.type === "needs");
    for (const { documents, modules } of asked.slice(answered)) {
      const supply: Supply = {
        documents: Object.fromEntries(documents.map((url) => [url, linked[url] ?? null])),
        sources: Object.fromEntries(modules.map((url) => [url, sourceOf(url, files)])),
      };
      await host.writer.write(line(supply));
    }
    answered = asked.length;
    // After `done`, the host waits for another task. It exits only when stdin is closed.
    if (responsesIn(stdout).some(({ type }) => type === "done")) await host.writer.close();
  }
  const { code } = await host.status;
  await host.writer.close().catch(() => {});
  return { stdout, code };
}

/** The answers in a host's output so far. An answer that is still incomplete is left out. */
export function responsesIn(stdout: string): Answer[] {
  const lines = stdout.slice(0, stdout.lastIndexOf("\n") + 1).split("\n")
    .filter((line) => line.startsWith(NONCE))
    .map((line) => JSON.parse(line.slice(NONCE.length)));
  const answers: Answer[] = [];
  for (let response = lines.shift(); response; response = lines.shift()) {
    const more = response.type === "card" || response.type === "definitions";
    if (more && lines.length === 0) break;
    answers.push(more ? { ...lines.shift(), ...response } : response);
  }
  return answers;
}

export const REALM = {
  url: BLOG,
  name: "Luke's blog",
  baseURL: BASE_URL,
  iconURL: `${BLOG}icon.svg`,
  stylesheet: null,
};

/**
 * The document of a card. The module `module` exports the card's type under the name `name`. The
 * keys of `links` are field names such as `author` or `friends.0`, and the values are URLs.
 */
export function doc(
  module: string,
  name: string,
  attributes: Record<string, unknown> = {},
  links: Record<string, string> = {},
): CardDocument {
  const relationships = Object.fromEntries(
    Object.entries(links).map(([key, self]) => [key, { links: { self } }]),
  );
  return {
    data: { type: "card", attributes, relationships, meta: { adoptsFrom: { module, name } } },
  };
}

/**
 * A task to render cards of the blog realm. The keys of `cards` are paths inside the realm.
 * `linked` has the documents of other cards, by public URL.
 */
export function cardsTask(
  cards: Record<string, CardDocument>,
  linked: Record<string, CardDocument> = {},
): CardsTask {
  return {
    type: "cards",
    realm: REALM,
    cards: Object.entries(cards).map(([path, doc]) => ({ url: BLOG + path, doc })),
    linked,
  };
}

/** The host's answers for cards, by the card's path inside the blog realm. */
export function byPath({ responses }: Run): Record<string, CardResponse> {
  return Object.fromEntries(
    responses.filter((response) => response.type === "card")
      .map((response) => [response.url.slice(BLOG.length), response as CardResponse]),
  );
}

/** Returns a card's answer. Throws if the answer is missing or has an error. */
export function rendered(response: CardResponse | undefined) {
  if (!response || "error" in response) throw new Error(JSON.stringify(response));
  return response;
}

/** Returns the error in a card's answer. Throws if the answer is missing or has no error. */
export function failed(response: CardResponse | undefined) {
  if (!response || !("error" in response)) throw new Error(JSON.stringify(response));
  return response.error;
}
