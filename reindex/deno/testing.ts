/**
 * What the prerenderer's tests share: a replica that serves pinned realms, and the host as a process
 * with the same permissions as in production.
 */
import type { CardDocument } from "@realm/base";
import type {
  CardResponse,
  CardsTask,
  DefinitionsTask,
  ErrorDocument,
  Request,
} from "./protocol.ts";
import type { Response as HostResponse } from "./protocol.ts";

const ROOT = new URL("../../", import.meta.url);
const DENO_DIR = await Deno.makeTempDir({ prefix: "prerender-test-" });
addEventListener("unload", () => Deno.removeSync(DENO_DIR, { recursive: true }));

export const BASE_URL = "http://localhost:4201/base/";
export const BLOG = "http://localhost:4201/luke/blog/";
export const PEOPLE = "http://localhost:4201/mango/people/";
export const NONCE = "nonce-that-card-code-never-learns:";

/** Served under `/_at/<token>/`; the tokens are as long as real ones. */
const TOKENS = {
  [BASE_URL]: "base-5fe2c3f4a9d1470d8a",
  [BLOG]: "blog-0c1de82f6ab94c55b3",
  [PEOPLE]: "people-b7a92f10cc3e4b6d81",
};

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
    this.urls = Object.fromEntries(
      Object.entries(TOKENS).map(([url, token]) => [`http://${this.host}/_at/${token}/`, url]),
    );
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

export interface Run {
  responses: HostResponse[];
  stdout: string;
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

/** Starts the host as the reindex does, and writes it one request. */
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
    unavailable,
    task,
  };
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(request) + "\n"));
  return Object.assign(process, { writer });
}

/** Runs a task to its end as the reindex does, in a new process after each that stopped. */
export async function run(
  files: Files,
  task: CardsTask | DefinitionsTask,
  timeLimitMs?: number,
): Promise<Run> {
  await using replica = new Replica(files);
  const answer: Run = { responses: [], stdout: "", code: 0, processes: 0 };
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
    const learned = Object.keys(last.unavailable).length > Object.keys(unavailable).length;
    if (responses.length === 1 && !learned) throw new Error("The host stopped for nothing");
    unavailable = last.unavailable;
    const answered = new Set(responses.map((one) => one.type === "card" ? one.url : null));
    task = { ...task, cards: task.cards.filter(({ url }) => !answered.has(url)) };
  }
}

/** One process; stdin stays open, because that is what keeps the host alive. */
export async function runOnce(
  replica: Replica,
  task: CardsTask | DefinitionsTask,
  timeLimitMs?: number,
  unavailable?: Record<string, ErrorDocument>,
): Promise<{ stdout: string; code: number }> {
  const host = await startHost(replica, task, timeLimitMs, unavailable);
  const [stdout, { code }] = await Promise.all([new Response(host.stdout).text(), host.status]);
  await host.writer.close().catch(() => {});
  return { stdout, code };
}

export function responsesIn(stdout: string): HostResponse[] {
  return stdout.split("\n")
    .filter((line) => line.startsWith(NONCE))
    .map((line) => JSON.parse(line.slice(NONCE.length)));
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
      .map((response) => [response.url.slice(BLOG.length), response]),
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
