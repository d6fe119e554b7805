// How many cameras have confirmed the deletion of an identity.

import { badge, plural } from "/ui/lib/dom.js";

const MAX_NAMED = 5;

export function confirmationsBadge(confirmations) {
  const { confirmed_count: confirmed, device_count: total } = confirmations;
  const text = `${confirmed} of ${plural(total, "camera has", "cameras have")} confirmed`;
  return badge(text, confirmed === total ? "good" : "warn");
}

/** Return the first cameras that have not confirmed yet, or null if all have. */
export function waitingFor(confirmations) {
  const waiting = confirmations.waiting.slice(0, MAX_NAMED).join(", ");
  return waiting ? `waiting for ${waiting}` : null;
}
