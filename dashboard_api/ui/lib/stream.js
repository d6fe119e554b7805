// Server-sent events by fetch, since EventSource cannot send the key in a header.

import { Problem, hear, open } from "/ui/lib/api.js";
import { limits } from "/ui/lib/limits.js";

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 5000;

/**
 * Follow the stream until `signal` aborts, and resume after the last event after a break or a long silence.
 * `onState(true)` means that the stream brings every event from now on: load the recorded events then.
 */
export async function followEvents({ signal, onEvent, onState, onRejected }) {
  let last = null;
  let retry = FIRST_RETRY_MS;
  while (!signal.aborted) {
    const connection = new AbortController();
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const either = AbortSignal.any([signal, connection.signal]);
      const response = await open("/api/v1/events/stream", { headers, signal: either });
      onState(true);
      retry = FIRST_RETRY_MS;
      for await (const block of blocks(response.body)) {
        if (block.data) {
          onEvent(JSON.parse(block.data));
        }
        last = block.id ?? last;
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
        onRejected(error);
        return;
      }
      if (error instanceof Problem && error.code === "resume-lost") {
        last = null;
      }
    }
    connection.abort();
    onState(false);
    await new Promise((resolve) => setTimeout(resolve, retry));
    retry = Math.min(2 * retry, MAX_RETRY_MS);
  }
}

/** Yield the blocks of a stream; an error if none comes for a while, though the API sends comments meanwhile. */
async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await withinLimit(reader.read(), limits.idleMs);
    if (done) {
      return;
    }
    hear();
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      yield parse(part);
    }
  }
}

async function withinLimit(work, ms) {
  let timer = null;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the live stream is silent")), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function parse(part) {
  const block = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) {
      block[line.slice(0, colon)] = line.slice(colon + 2);
    }
  }
  return block;
}
