// Requests with the API key in a header, since a key in a URL would end up in logs.

import { limits } from "/ui/lib/limits.js";

const STORAGE_NAME = "wfm-api-key";

export const key = {
  get: () => sessionStorage.getItem(STORAGE_NAME),
  set: (text) => sessionStorage.setItem(STORAGE_NAME, text),
  clear: () => sessionStorage.removeItem(STORAGE_NAME),
};

/** The last sign of life from the API: `at` is the time of an answer or of a block of the stream. */
export const lastHeard = { at: performance.now() };

export function hear() {
  lastHeard.at = performance.now();
}

/** An error response: `status`, stable `code`, and a sentence in `message`; status 0 is no response. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `the server answered ${status}`);
    this.status = status;
    this.code = document.code ?? "unknown";
  }
}

/** Return the response, complete within `limit` milliseconds; an error response is a Problem. */
export async function request(path, { method = "GET", headers = {}, body, signal, limit } = {}) {
  const reads = method === "GET";
  const timeout = AbortSignal.timeout(limit ?? (reads ? limits.readMs : limits.changeMs));
  try {
    const response = await fetch(path, {
      method,
      body,
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      cache: "no-store",
      headers: { Authorization: `Bearer ${key.get()}`, ...headers },
    });
    hear();
    if (!response.ok) {
      throw new Problem(response.status, await response.json().catch(() => ({})));
    }
    // Read here, within the limit: a server can also stop in the middle of its answer.
    return new Response(await response.blob(), { headers: response.headers });
  } catch (error) {
    throw error instanceof Problem || signal?.aborted ? error : noAnswer(reads, timeout.aborted);
  }
}

/** Open a response that goes on for as long as the API likes; its start has the limit of a request. */
export async function open(path, { headers = {}, signal }) {
  const start = new AbortController();
  const timer = setTimeout(() => start.abort(), limits.readMs);
  try {
    const response = await fetch(path, {
      signal: AbortSignal.any([signal, start.signal]),
      cache: "no-store",
      headers: { Authorization: `Bearer ${key.get()}`, ...headers },
    });
    hear();
    if (!response.ok) {
      throw new Problem(response.status, await response.json().catch(() => ({})));
    }
    return response;
  } finally {
    clearTimeout(timer);
  }
}

function noAnswer(reads, late) {
  const what = late ? "the API did not answer in time" : "the API cannot be reached";
  const detail = reads ? what : `${what}: the change may or may not have been made; look, and then try again`;
  return new Problem(0, { code: "no-answer", detail });
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function sendJson(method, path, document) {
  const body = document === undefined ? undefined : JSON.stringify(document);
  const response = await request(path, { method, body, headers: { "Content-Type": "application/json" } });
  return response.json();
}
