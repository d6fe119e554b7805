// How long the page waits, in milliseconds. A test may set `wfmLimits` before the page is loaded.

export const limits = {
  /** For the answer to a request that reads, that changes something, that uploads photos. */
  readMs: 10_000,
  changeMs: 30_000,
  uploadMs: 180_000,
  /** For the next block of the live stream, which has a comment every few seconds (`api.stream_keepalive_seconds`). */
  idleMs: 15_000,
  /** For any sign of life from the API, which is asked every few seconds, before the page says that it is not live. */
  silentMs: 8_000,
  /** How long a part of the page may fail before the page says so in large letters. */
  failingMs: 5_000,
  ...globalThis.wfmLimits,
};
