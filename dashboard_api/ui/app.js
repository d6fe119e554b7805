// Signing in and out, and what is loaded when.

import { Problem, getJson, key } from "/ui/lib/api.js";
import { showDevices } from "/ui/devices.js";
import { byId } from "/ui/lib/dom.js";
import { Events } from "/ui/events.js";
import { People } from "/ui/identities/enrolled.js";
import { follow } from "/ui/lib/stream.js";
import { Tracked } from "/ui/detected_persons/list.js";

const TRACKED_MS = 2000;
const DEVICES_MS = 3000;
const PEOPLE_MS = 15000;

const people = new People(refused, () => {
  events.clear();
  events.refresh().catch(refused);
});
const events = new Events((userId) => people.name(userId));
const tracked = new Tracked(refused, () => [...people.list.items.values()]);
let session = null;

function show(signedIn) {
  byId("login").hidden = signedIn;
  byId("board").hidden = !signedIn;
  byId("sign-out").hidden = !signedIn;
  byId("link").hidden = !signedIn;
}

function signOut(why = "") {
  session?.abort();
  session = null;
  key.clear();
  people.clear();
  events.clear();
  tracked.clear();
  byId("login-error").textContent = why;
  show(false);
  byId("key").focus();
}

/** Whether `error` says that the key is no longer good, after which the page is signed out. */
function refused(error) {
  if (error instanceof Problem && error.status === 401) {
    signOut(error.message);
    return true;
  }
  return false;
}

/** How the page is linked to the API: live while every part of it gets its answers. */
class Link {
  constructor() {
    this.broken = new Set();
  }

  state(part, live) {
    this.broken[live ? "delete" : "add"](part);
    const broken = this.broken.size > 0;
    byId("link").textContent = broken ? "connecting again" : "live";
    byId("link").classList.toggle("broken", broken);
  }
}

/** Run `load` now and every `ms`, one at a time; while it fails the link shows as broken. */
async function every(ms, signal, link, load) {
  while (!signal.aborted) {
    try {
      await load();
      link.state(load, true);
    } catch (error) {
      if (signal.aborted || refused(error)) {
        return;
      }
      link.state(load, false);
    }
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}

async function start() {
  const { signal } = (session = new AbortController());
  const link = new Link();
  show(true);
  link.state(follow, false);
  // Names first, so that events show them from the start; a failure is tried again below.
  await people.refresh().catch(refused);
  if (signal.aborted) {
    return;
  }
  follow({
    signal,
    onEvent: (event) => events.add(event),
    onState: (live) => {
      link.state(follow, live);
      if (live) {
        events.refresh().catch(refused);
      }
    },
    onRefused: (problem) => signOut(problem.message),
  });
  every(TRACKED_MS, signal, link, () => tracked.refresh());
  every(PEOPLE_MS, signal, link, () => people.refresh());
  every(DEVICES_MS, signal, link, showDevices);
  every(DEVICES_MS, signal, link, () => people.followDeleted());
}

async function signIn(text) {
  key.set(text);
  try {
    // Every part of the page is for keys that may read; what may be changed depends on the role.
    const [{ role }] = await Promise.all([getJson("/api/v1/whoami"), getJson("/api/v1/devices?limit=1")]);
    tracked.mayChange = role === "admin" || role === "operator";
    people.deleted.mayErase = role === "admin";
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
  show(false);
}
