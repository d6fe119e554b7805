// A detected person: a line, with the details below while they are open.

import { badge, button, clock, el } from "/ui/lib/dom.js";
import { DetectedPersonEdits } from "/ui/detected_persons/edits.js";
import { may } from "/ui/lib/role.js";
import { facts, nameOf, summary } from "/ui/detected_persons/person.js";

export class DetectedPersonRow {
  constructor(page, id) {
    this.page = page;
    this.id = id;
    this.details = null;
    // The button is not drawn again, so that it keeps the focus.
    this.name = button("", "name", () => this.page.attempt(() => this.page.toggle(this.id)));
    this.facts = el("span", "hint");
    this.marks = el("div", "marks");
    this.element = el("li", "person", el("div", "row", el("div", "what", this.name, this.facts), this.marks));
  }

  /** Show `person`, and the details if `opened` has the person with the trail of today. */
  show(person, opened) {
    const name = nameOf(person);
    if (this.name.textContent !== name) {
      this.name.textContent = name;
    }
    this.facts.textContent = summary(person);
    this.marks.replaceChildren(
      ...(person.user_id ? [badge("enrolled", "good")] : []),
      ...(person.is_active ? [] : [badge("away", "calm")]),
    );
    this.name.setAttribute("aria-expanded", Boolean(opened));
    if (!opened) {
      this.details?.element.remove();
      this.details = null;
      return;
    }
    if (!this.details) {
      this.details = new Details(this.page, this.id);
      this.element.append(this.details.element);
    }
    this.details.show(opened);
  }
}

class Details {
  constructor(page, id) {
    this.facts = el("dl", "facts");
    this.trail = el("ol", "trail");
    this.changes = may.change ? new DetectedPersonEdits(page, id) : null;
    const places = el("div", "", el("h3", "", "Today"), this.trail);
    this.element = el("div", "details", this.facts, places, this.changes?.element);
  }

  /** Show the facts of the person and the cameras of today, newest first. */
  show({ person, trail }) {
    this.facts.replaceChildren(
      ...facts(person).flatMap(([term, known]) => [el("dt", "", term), el("dd", "", known)]),
    );
    const stays = trail.items.map((stay) =>
      el("li", "", el("span", "", stay.device_id), el("span", "hint", span(stay))),
    );
    const rest = trail.next_cursor ? "and earlier" : stays.length ? null : "Not seen today.";
    this.trail.replaceChildren(...stays, ...(rest ? [el("li", "hint", rest)] : []));
    this.changes?.show(person);
  }
}

const span = (stay) => `${clock(stay.since)} to ${clock(stay.until)}`;
