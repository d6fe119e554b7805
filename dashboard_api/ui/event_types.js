// How the page shows each event type; a test compares the types with the contract's.

export const EVENT_TYPES = {
  facial_id: { label: "recognised", kind: "good" },
  emotion: { label: "emotion", kind: "calm" },
  visit: { label: "visit", kind: "calm" },
  unknown: { label: "unknown person", kind: "warn" },
};
