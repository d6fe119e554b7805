// Requests with the API key in a header, since a key in a URL would end up in logs.

const STORAGE_NAME = "wfm-api-key";

export const key = {
  get: () => sessionStorage.getItem(STORAGE_NAME),
  set: (text) => sessionStorage.setItem(STORAGE_NAME, text),
  clear: () => sessionStorage.removeItem(STORAGE_NAME),
};

/** An error response: `status`, stable `code`, and a sentence in `message`. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `the server answered ${status}`);
    this.status = status;
    this.code = document.code ?? "unknown";
  }
}

export async function request(path, { method = "GET", headers = {}, body, signal } = {}) {
  const response = await fetch(path, {
    method,
    body,
    signal,
    cache: "no-store",
    headers: { Authorization: `Bearer ${key.get()}`, ...headers },
  });
  if (!response.ok) {
    throw new Problem(response.status, await response.json().catch(() => ({})));
  }
  return response;
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function sendJson(method, path, document) {
  const body = document === undefined ? undefined : JSON.stringify(document);
  const response = await request(path, { method, body, headers: { "Content-Type": "application/json" } });
  return response.json();
}
