// Sign-in and sign-out, and the refresh of each section of the page.

import { DetectedPersons } from "/ui/detected_persons/list.js";
import { refreshDevices } from "/ui/devices.js";
import { EventList } from "/ui/events.js";
import { EnrolledIdentities } from "/ui/identities/enrolled.js";
import { Problem, getJson, key } from "/ui/lib/api.js";
import { ConnectionStatus } from "/ui/lib/connection_status.js";
import { byId } from "/ui/lib/dom.js";
import { setRole } from "/ui/lib/role.js";
import { followEvents } from "/ui/lib/stream.js";
import { clearMigration } from "/ui/migration.js";
import { refreshSpaces } from "/ui/spaces.js";

const DETECTED_MS = 2000;
const DEVICES_MS = 3000;
const IDENTITIES_MS = 15000;

const identities = new EnrolledIdentities(signOutIfRejected, () => {
  events.clear();
  events.refresh().catch(signOutIfRejected);
});
const events = new EventList((userId) => identities.nameOf(userId));
const detected = new DetectedPersons(signOutIfRejected, () => [...identities.list.items.values()]);
let session = null;

function showBoard(signedIn) {
  byId("login").hidden = signedIn;
  byId("board").hidden = !signedIn;
  byId("sign-out").hidden = !signedIn;
  byId("connection").hidden = !signedIn;
}

function signOut(reason = "") {
  session?.abort();
  session = null;
  key.clear();
  setRole(null);
  byId("devices").replaceChildren();
  byId("spaces").replaceChildren();
  clearMigration();
  identities.clear();
  events.clear();
  detected.clear();
  byId("login-error").textContent = reason;
  showBoard(false);
  byId("key").focus();
}

/** Sign out and return true if `error` means that the API rejected the key. */
function signOutIfRejected(error) {
  if (error instanceof Problem && error.status === 401) {
    signOut(error.message);
    return true;
  }
  return false;
}

/** Run `load` now and `ms` after each run until `signal` aborts; a failure shows in `connection`. */
async function repeat(ms, signal, connection, load) {
  while (!signal.aborted) {
    try {
      await load();
      connection.set(load, true);
    } catch (error) {
      if (signal.aborted || signOutIfRejected(error)) {
        return;
      }
      connection.set(load, false);
    }
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}

async function start() {
  const { signal } = (session = new AbortController());
  const connection = new ConnectionStatus(byId("connection"), byId("not-live"), signal);
  showBoard(true);
  connection.set(followEvents, false);
  // Identities first, so that events show names from the start; a failure is tried again below.
  await identities.refresh().catch(signOutIfRejected);
  if (signal.aborted) {
    return;
  }
  followEvents({
    signal,
    onEvent: (event) => events.add(event),
    onState: (live) => {
      connection.set(followEvents, live);
      if (live) {
        events.refresh().catch(signOutIfRejected);
      }
    },
    onRejected: (problem) => signOut(problem.message),
  });
  repeat(DETECTED_MS, signal, connection, () => detected.refresh());
  repeat(IDENTITIES_MS, signal, connection, () => identities.refresh());
  repeat(DEVICES_MS, signal, connection, refreshDevices);
  repeat(IDENTITIES_MS, signal, connection, refreshSpaces);
  repeat(DEVICES_MS, signal, connection, () => identities.refreshDeleted());
}

async function signIn(text) {
  key.set(text);
  try {
    // Every section needs a key that may read; the role decides about changes.
    const [{ role }] = await Promise.all([getJson("/api/v1/whoami"), getJson("/api/v1/devices?limit=1")]);
    setRole(role);
  } catch (error) {
    signOut(error.message);
    return;
  }
  byId("login-error").textContent = "";
  start();
}

byId("login-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  signIn(byId("key").value.trim());
  byId("key").value = "";
});
byId("sign-out").addEventListener("click", () => signOut());

if (key.get()) {
  signIn(key.get());
} else {
  showBoard(false);
}
