// Detected persons: those that cameras see now, or all that they have seen.

import { getJson } from "/ui/lib/api.js";
import { arrange, byId, el, plural } from "/ui/lib/dom.js";
import { PagedList } from "/ui/lib/paged_list.js";
import { drawReleased } from "/ui/lib/rows.js";
import { Section } from "/ui/lib/section.js";
import { ALL, path } from "/ui/detected_persons/person.js";
import { DetectedPersonRow } from "/ui/detected_persons/row.js";

const PAGE = 20;
const MAX_SHOWN = 50;
const MAX_ACTIVE = 200;
const MAX_SEGMENTS = 20;

const allPersons = () => new PagedList(ALL, (person) => person.global_id, PAGE);

/** Sort active persons by arrival, then the others by last sight, newest first: a stable order of rows. */
export function inOrder(people) {
  const rank = (person) => `${person.is_active ? 1 : 0} ${person.since ?? person.last_seen}`;
  return [...people].sort((first, second) => rank(second).localeCompare(rank(first)));
}

export class DetectedPersons extends Section {
  /** `signOutIfRejected(error)` returns true if the API rejected the key; `enrolled()` lists identities to link. */
  constructor(signOutIfRejected, enrolled) {
    super(byId("detected-notice"), signOutIfRejected);
    this.enrolled = enrolled;
    this.turn = 0;
    this.forget();
    byId("show-active").addEventListener("click", () => this.attempt(() => this.show(false)));
    byId("show-all-seen").addEventListener("click", () => this.attempt(() => this.show(true)));
    byId("more-detected").addEventListener("click", () => this.attempt(() => this.more()));
  }

  forget() {
    // Pending answers belong to the session before: a new turn discards them.
    this.turn += 1;
    this.list = allPersons();
    this.people = new Map();
    this.activeCount = 0;
    this.isFollowed = true;
    this.rows = new Map();
    this.opened = null;
    this.showsAll = false;
  }

  /** Remove everything that belongs to a session. */
  clear() {
    this.forget();
    this.showNotice("");
    byId("detected").replaceChildren();
  }

  async show(showsAll) {
    this.showsAll = showsAll;
    await this.refresh();
  }

  async refresh() {
    const turn = (this.turn += 1);
    const [active, { bridge }, trail] = await Promise.all([
      getJson(`${ALL}/active?limit=${MAX_ACTIVE}`),
      getJson("/readyz"),
      this.opened === null ? null : unlessGone(trailOfToday(this.opened)),
      this.showsAll ? this.list.refresh() : null,
    ]);
    const people = new Map(this.showsAll ? this.list.items : null);
    for (const person of active.persons) {
      if (!this.showsAll || people.has(person.global_id)) {
        people.set(person.global_id, person);
      }
    }
    const id = trail?.global_id;
    const person = trail && (people.get(id) ?? (await unlessGone(getJson(`${path(id)}?face=false`))));
    if (turn === this.turn) {
      this.people = people;
      this.activeCount = active.active_persons;
      this.isFollowed = bridge;
      // A person that was merged in the meantime is shown as the target of the merge.
      this.opened = person?.global_id ?? null;
      this.draw(person && { person, trail });
    }
  }

  async more() {
    await this.list.more();
    await this.refresh();
  }

  /** Open or close the details of this person. */
  async toggle(id) {
    this.opened = this.opened === id ? null : id;
    await this.refresh();
  }

  draw(opened) {
    drawReleased(this, () => this.drawNow(opened));
  }

  drawNow(opened) {
    const hadFocus = byId("detected").contains(document.activeElement);
    const ordered = inOrder(this.people.values());
    const shown = ordered.slice(0, this.showsAll ? undefined : MAX_SHOWN);
    const rest = this.showsAll ? 0 : this.activeCount - shown.length;
    // The opened person stays in the list, also when it is away or far down.
    if (opened && !shown.some((person) => person.global_id === this.opened)) {
      shown.push(opened.person);
    }
    this.rows = new Map(shown.map(({ global_id: id }) => [id, this.rows.get(id) ?? new DetectedPersonRow(this, id)]));
    for (const person of shown) {
      this.rows.get(person.global_id).show(person, person.global_id === this.opened ? opened : null);
    }
    const empty = this.showsAll ? "No person has been seen yet." : "No person is seen right now.";
    const seenNow = `${plural(this.activeCount, "person", "people")} seen now`;
    const rows = [...this.rows.values()].map((row) => row.element);
    arrange(byId("detected"), rows.length ? rows : [el("li", "empty", empty)]);
    byId("more-active").textContent = `and ${rest} more`;
    byId("more-active").hidden = rest <= 0;
    byId("more-detected").hidden = !this.showsAll || !this.list.cursor;
    byId("detected-summary").textContent = this.isFollowed ? seenNow : "no bridge is running: the list is not updated";
    byId("show-active").setAttribute("aria-pressed", !this.showsAll);
    byId("show-all-seen").setAttribute("aria-pressed", this.showsAll);
    // If the focused element is gone, the focus moves near by, for keyboard users.
    if (hadFocus && !byId("detected").contains(document.activeElement)) {
      (this.rows.get(this.opened)?.name ?? byId("show-active")).focus();
    }
  }
}

function trailOfToday(id) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  return getJson(`${path(id)}/trail?since=${midnight.toISOString()}&limit=${MAX_SEGMENTS}`);
}

/** Return the answer of a request, or null if the person does not exist any more. */
async function unlessGone(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error.status === 404) {
      return null;
    }
    throw error;
  }
}
