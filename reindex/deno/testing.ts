/**
 * What the prerenderer's tests share: a replica that serves pinned realms, and the host as a process
 * with the same permissions as in production.
 */
import type { CardDocument } from "@realm/base";
import type {
  CardsTask,
  DefinitionsTask,
  Documents,
  ErrorDocument,
  Order,
  RenderedCard,
  Request,
  Response as HostResponse,
  Result,
} from "./protocol.ts";

const ROOT = new URL("../../", import.meta.url);
const DENO_DIR = await Deno.makeTempDir({ prefix: "prerender-test-" });
addEventListener("unload", () => Deno.removeSync(DENO_DIR, { recursive: true }));

export const BASE_URL = "http://localhost:4201/base/";
export const BLOG = "http://localhost:4201/luke/blog/";
export const PEOPLE = "http://localhost:4201/mango/people/";
export const NONCE = "nonce-that-card-code-never-learns:";

/** Files by public URL; a module is written as the JavaScript that a replica serves. */
export type Files = Record<string, string>;

export class Replica implements AsyncDisposable {
  readonly host: string;
  /** Pinned prefixes and their public URLs. */
  readonly urls: Record<string, string>;
  readonly requested: string[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(files: Files) {
    this.#server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
      this.requested.push(request.url);
      const pinned = Object.entries(this.urls).find(([prefix]) => request.url.startsWith(prefix));
      if (!pinned) return new Response("no such realm", { status: 404 });
      const url = pinned[1] + request.url.slice(pinned[0].length);
      return respond(url, url.startsWith(BASE_URL) ? BASE_FILES : files, request.url);
    });
    this.host = `127.0.0.1:${this.#server.addr.port}`;
    // Named anew each time: what Deno keeps of one replica is not for the next at the same port.
    const pinned = () => `http://${this.host}/_at/${crypto.randomUUID()}/`;
    this.urls = Object.fromEntries([BASE_URL, BLOG, PEOPLE].map((url) => [pinned(), url]));
  }

  async [Symbol.asyncDispose]() {
    await this.#server.shutdown();
  }
}

function respond(url: string, files: Files, requested: string): Response {
  if (url in files) {
    const status = files[url] === "406" ? 406 : files[url] === "503" ? 503 : 200;
    return new Response(files[url], { status, headers: { "content-type": "text/javascript" } });
  }
  for (const extension of [".tsx", ".ts", ".jsx", ".js"]) {
    if (url + extension in files) return Response.redirect(requested + extension, 302);
  }
  return new Response("no such file", { status: 404 });
}

/** The card library as a replica serves it. */
async function transpiledBase(): Promise<Files> {
  const names = [...Deno.readDirSync(new URL("realms/base/", ROOT))].map((entry) => entry.name)
    .filter((name) => /\.tsx?$/.test(name) && !name.includes("_test."));
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["transpile", "--outdir", DENO_DIR, ...names.map((name) => `realms/base/${name}`)],
    cwd: ROOT,
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return Object.fromEntries(names.map((name) => {
    const js = `${DENO_DIR}/realms/base/${name.replace(/\.tsx?$/, ".js")}`;
    return [BASE_URL + name, Deno.readTextFileSync(js)];
  }));
}

const BASE_FILES = await transpiledBase();

/** A response together with the result that follows it. */
export type Answer = HostResponse & Partial<Result>;
export type CardResponse =
  & Extract<HostResponse, { type: "card" }>
  & (RenderedCard | { error: ErrorDocument });

export interface Run {
  responses: Answer[];
  stdout: string;
  /** The URLs that its replica served the realms at. */
  pinned: string[];
  /** The exit code of the last process. */
  code: number;
  processes: number;
}

/**
 * Every spelling of a pinned realm leads to its pinned bytes: its public URL, and the same path on the
 * replica, which is what a root-relative import comes to. All else on the replica is not pinned and
 * must not be rendered.
 */
function importMap(replica: Replica, npm: Record<string, string>): Record<string, string> {
  const origin = `http://${replica.host}/`;
  const imports: Record<string, string> = {
    ...npm,
    [origin]: "http://not-pinned.invalid/",
    [`${origin}_at/`]: `${origin}_at/`,
  };
  for (const [pinned, url] of Object.entries(replica.urls)) {
    imports[url] = pinned;
    imports[origin + new URL(url).pathname.slice(1)] = pinned;
    if (url === BASE_URL) imports["@realm/base"] = `${pinned}mod.ts`;
  }
  return imports;
}

/** Starts the host as the reindex does, and writes it one request. What is linked stays for later. */
export async function startHost(
  replica: Replica,
  task: CardsTask | DefinitionsTask,
  timeLimitMs = 5_000,
  unavailable: Record<string, ErrorDocument> = {},
): Promise<Deno.ChildProcess & { writer: WritableStreamDefaultWriter<Uint8Array> }> {
  const config = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  const imports = importMap(replica, config.imports);
  const map = await Deno.makeTempFile({ dir: DENO_DIR, suffix: ".json" });
  await Deno.writeTextFile(map, JSON.stringify({ imports }));
  const process = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-lock",
      "--no-config",
      "--no-check",
      "--unstable-worker-options",
      "--node-modules-dir=manual",
      `--import-map=${map}`,
      `--allow-import=${replica.host}`,
      "--allow-read=reindex/deno,node_modules",
      "--v8-flags=--max-old-space-size=256",
      "reindex/deno/host.ts",
    ],
    cwd: ROOT,
    env: { DENO_DIR, SECRET_OF_THE_HOST: "secret" },
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const request: Request = {
    nonce: NONCE,
    replica: replica.host,
    timeLimitMs,
    urls: replica.urls,
  };
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

/** Runs a task to its end as the reindex does, in a new process after each that stopped. */
export async function run(
  files: Files,
  task: CardsTask | DefinitionsTask,
  timeLimitMs?: number,
): Promise<Run> {
  await using replica = new Replica(files);
  const pinned = Object.keys(replica.urls);
  const answer: Run = { responses: [], stdout: "", pinned, code: 0, processes: 0 };
  let unavailable: Record<string, ErrorDocument> = {};
  for (;;) {
    const { stdout, code } = await runOnce(replica, task, timeLimitMs, unavailable);
    const responses = responsesIn(stdout);
    answer.responses.push(...responses);
    answer.stdout += stdout;
    answer.code = code;
    answer.processes++;
    const last = responses.at(-1);
    if (last?.type !== "stopped" || task.type !== "cards") return answer;
    const answers = responses.filter(({ type }) => type !== "needs");
    const learned = Object.keys(last.unavailable).length > Object.keys(unavailable).length;
    if (answers.length === 1 && !learned) throw new Error("The host stopped for nothing");
    unavailable = last.unavailable;
    const answered = new Set(responses.map((one) => one.type === "card" ? one.url : null));
    task = { ...task, cards: task.cards.filter(({ url }) => !answered.has(url)) };
  }
}

/**
 * One process; stdin stays open, because that is what keeps the host alive. Documents are given out
 * when they are asked for.
 */
export async function runOnce(
  replica: Replica,
  task: CardsTask | DefinitionsTask,
  timeLimitMs?: number,
  unavailable?: Record<string, ErrorDocument>,
): Promise<{ stdout: string; code: number }> {
  const host = await startHost(replica, task, timeLimitMs, unavailable);
  const linked: Documents = task.type === "cards" ? task.linked ?? {} : {};
  let stdout = "";
  let answered = 0;
  for await (const part of host.stdout.pipeThrough(new TextDecoderStream())) {
    stdout += part;
    const asked = responsesIn(stdout).filter((response) => response.type === "needs");
    for (const { urls } of asked.slice(answered)) {
      await host.writer.write(
        line(Object.fromEntries(urls.map((url) => [url, linked[url] ?? null]))),
      );
    }
    answered = asked.length;
    // It could do another task.
    if (responsesIn(stdout).some(({ type }) => type === "done")) await host.writer.close();
  }
  const { code } = await host.status;
  await host.writer.close().catch(() => {});
  return { stdout, code };
}

/** The answers that are whole. */
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

/** A document that adopts from a type; `links` are its relationships. */
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

/** A cards task; the keys are paths inside the blog realm. */
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

/** The answers for cards, by path inside the blog realm. */
export function byPath({ responses }: Run): Record<string, CardResponse> {
  return Object.fromEntries(
    responses.filter((response) => response.type === "card")
      .map((response) => [response.url.slice(BLOG.length), response as CardResponse]),
  );
}

/** A card's answer that must not be an error. */
export function rendered(response: CardResponse | undefined) {
  if (!response || "error" in response) throw new Error(JSON.stringify(response));
  return response;
}

/** A card's answer that must be an error. */
export function failed(response: CardResponse | undefined) {
  if (!response || !("error" in response)) throw new Error(JSON.stringify(response));
  return response.error;
}
