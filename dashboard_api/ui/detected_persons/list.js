// Who is where: people whom the cameras see now, and all whom they have seen, enrolled or not.

import { getJson } from "/ui/lib/api.js";
import { arrange, byId, el, plural } from "/ui/lib/dom.js";
import { PagedList } from "/ui/lib/paged_list.js";
import { Section } from "/ui/lib/section.js";
import { ALL, path } from "/ui/detected_persons/person.js";
import { DetectedPersonRow } from "/ui/detected_persons/row.js";

const PAGE = 20;
const MOST_SHOWN = 50;
const MOST_ACTIVE = 200;
const MOST_STAYS = 20;

const everybody = () => new PagedList(ALL, (person) => person.global_id, PAGE);

/** Whoever is here by when they came, then whoever is away by when they were seen, newest first: nobody jumps about. */
export function inOrder(people) {
  const rank = (person) => `${person.is_active ? 1 : 0} ${person.since ?? person.last_seen}`;
  return [...people].sort((one, other) => rank(other).localeCompare(rank(one)));
}

export class DetectedPersons extends Section {
  /** `signOutIfRejected(error)` returns true if the API rejected the key; `enrolled()` are people whom somebody may be linked to. */
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
    // Answers that are still on their way belong to what was there before.
    this.turn += 1;
    this.list = everybody();
    this.people = new Map();
    this.activeCount = 0;
    this.isFollowed = true;
    this.rows = new Map();
    this.opened = null;
    this.mayChange = false;
    this.showsEverybody = false;
  }

  /** Forget everything of a session. */
  clear() {
    this.forget();
    this.showNotice("");
    byId("detected").replaceChildren();
  }

  async show(showsEverybody) {
    this.showsEverybody = showsEverybody;
    await this.refresh();
  }

  async refresh() {
    const turn = (this.turn += 1);
    const [said, { bridge }, trail] = await Promise.all([
      getJson(`${ALL}/active?limit=${MOST_ACTIVE}`),
      getJson("/readyz"),
      this.opened === null ? null : unlessGone(trailOfToday(this.opened)),
      this.showsEverybody ? this.list.refresh() : null,
    ]);
    const people = new Map(this.showsEverybody ? this.list.items : null);
    for (const person of said.persons) {
      if (!this.showsEverybody || people.has(person.global_id)) {
        people.set(person.global_id, person);
      }
    }
    const id = trail?.global_id;
    const person = trail && (people.get(id) ?? (await unlessGone(getJson(`${path(id)}?face=false`))));
    if (turn === this.turn) {
      this.people = people;
      this.activeCount = said.active_persons;
      this.isFollowed = bridge;
      // Whom somebody has merged meanwhile is shown as who they turned out to be.
      this.opened = person?.global_id ?? null;
      this.draw(person && { person, trail });
    }
  }

  async more() {
    await this.list.more();
    await this.refresh();
  }

  /** Open the details of this person, or close them. */
  async toggle(id) {
    this.opened = this.opened === id ? null : id;
    await this.refresh();
  }

  draw(opened) {
    const hadFocus = byId("detected").contains(document.activeElement);
    const ordered = inOrder(this.people.values());
    const shown = ordered.slice(0, this.showsEverybody ? undefined : MOST_SHOWN);
    const rest = this.showsEverybody ? 0 : this.activeCount - shown.length;
    // Who is looked at may leave, or be far down: they stay.
    if (opened && !shown.some((person) => person.global_id === this.opened)) {
      shown.push(opened.person);
    }
    this.rows = new Map(shown.map(({ global_id: id }) => [id, this.rows.get(id) ?? new DetectedPersonRow(this, id)]));
    for (const person of shown) {
      this.rows.get(person.global_id).show(person, person.global_id === this.opened ? opened : null);
    }
    const nobody = this.showsEverybody ? "Nobody has been seen yet." : "Nobody is seen right now.";
    const seenNow = `${plural(this.activeCount, "person", "people")} seen now`;
    const rows = [...this.rows.values()].map((row) => row.element);
    arrange(byId("detected"), rows.length ? rows : [el("li", "empty", nobody)]);
    byId("more-active").textContent = `and ${rest} more`;
    byId("more-active").hidden = rest <= 0;
    byId("more-detected").hidden = !this.showsEverybody || !this.list.cursor;
    byId("detected-summary").textContent = this.isFollowed ? seenNow : "no bridge is at work: nobody is followed";
    byId("show-active").setAttribute("aria-pressed", !this.showsEverybody);
    byId("show-all-seen").setAttribute("aria-pressed", this.showsEverybody);
    // What had the focus may be no more: who works with the keyboard goes on from near by.
    if (hadFocus && !byId("detected").contains(document.activeElement)) {
      (this.rows.get(this.opened)?.name ?? byId("show-active")).focus();
    }
  }
}

function trailOfToday(id) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  return getJson(`${path(id)}/trail?since=${midnight.toISOString()}&limit=${MOST_STAYS}`);
}

/** What is asked for, or null if the person is not there any more. */
async function unlessGone(asked) {
  try {
    return await asked;
  } catch (error) {
    if (error.status === 404) {
      return null;
    }
    throw error;
  }
}
