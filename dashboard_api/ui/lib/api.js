// Requests with the key in a header: a key in a URL would end up in logs.

const STORED = "wfm-api-key";

export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: (text) => sessionStorage.setItem(STORED, text),
  clear: () => sessionStorage.removeItem(STORED),
};

/** An answer that is not a success: `status`, stable `code`, and a sentence in `message`. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `the server answered ${status}`);
    this.status = status;
    this.code = document.code ?? "unknown";
  }
}

export async function request(path, { method = "GET", headers = {}, body, signal } = {}) {
  const answer = await fetch(path, {
    method,
    body,
    signal,
    cache: "no-store",
    headers: { Authorization: `Bearer ${key.get()}`, ...headers },
  });
  if (!answer.ok) {
    throw new Problem(answer.status, await answer.json().catch(() => ({})));
  }
  return answer;
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function sendJson(method, path, document) {
  const body = document === undefined ? undefined : JSON.stringify(document);
  const answer = await request(path, { method, body, headers: { "Content-Type": "application/json" } });
  return answer.json();
}
