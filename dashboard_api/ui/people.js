// People: enroll by photo, delete, and see which cameras have confirmed it.

import { getJson, request, sendJson } from "/ui/api.js";
import { badge, button, byId, el, plural } from "/ui/dom.js";

const PAGE = 50;
const CONFIRMATION_MS = 500;
const path = (userId) => `/api/v1/identities/${encodeURIComponent(userId)}`;

export class People {
  constructor(onRefused) {
    this.people = new Map();
    this.cursor = null;
    this.deleting = new Map();
    this.onRefused = onRefused;
    this.asked = null;
    byId("more-people").addEventListener("click", () => this.attempt(() => this.more()));
    byId("enroll").addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      this.attempt(() => this.enroll(submitted.target));
    });
  }

  name(userId) {
    return this.people.get(userId)?.display_name ?? null;
  }

  /** Load as many people again as are shown. */
  async refresh() {
    const wanted = Math.max(PAGE, this.people.size);
    const people = new Map();
    let cursor = null;
    do {
      cursor = await this.load(people, cursor);
    } while (cursor && people.size < wanted);
    this.people = people;
    this.cursor = cursor;
    this.draw();
  }

  async more() {
    this.cursor = await this.load(this.people, this.cursor);
    this.draw();
  }

  /** Read the page behind `cursor` into `people`; the cursor of the page after it. */
  async load(people, cursor) {
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await getJson(`/api/v1/identities?limit=${PAGE}${after}`);
    for (const person of page.items) {
      people.set(person.user_id, person);
    }
    return page.next_cursor;
  }

  async enroll(form) {
    const fields = new FormData(form);
    const userId = fields.get("user_id").trim();
    const photo = fields.get("photo");
    const submit = form.querySelector("button");
    submit.disabled = true;
    try {
      const known = this.people.has(userId);
      const name = fields.get("display_name").trim();
      await sendJson("POST", "/api/v1/identities", { user_id: userId, ...(name ? { display_name: name } : {}) });
      try {
        await request(`${path(userId)}/photos`, {
          method: "POST",
          body: photo,
          headers: { "Content-Type": photo.type },
        });
      } catch (error) {
        if (!known) {
          await sendJson("DELETE", path(userId)).catch(() => null);
        }
        throw error;
      }
      form.reset();
      this.deleting.delete(userId);
      this.say(`${userId} is enrolled.`);
      await this.refresh();
    } finally {
      submit.disabled = false;
    }
  }

  async remove(userId) {
    this.asked = null;
    await sendJson("DELETE", path(userId));
    this.people.delete(userId);
    this.say(`${userId} is deleted.`);
    await this.confirm(userId);
  }

  /** Ask who has confirmed until all have, and show it each time. */
  async confirm(userId) {
    const said = await getJson(`${path(userId)}/confirmations`);
    if (!said.deleted) {
      this.deleting.delete(userId);
      return;
    }
    this.deleting.set(userId, said);
    this.draw();
    if (said.waiting.length) {
      setTimeout(() => this.deleting.has(userId) && this.attempt(() => this.confirm(userId)), CONFIRMATION_MS);
    }
  }

  draw() {
    const rows = [
      ...[...this.deleting].map(([userId, said]) => this.deletedRow(userId, said)),
      ...[...this.people.values()].map((person) => this.row(person)),
    ];
    // Drawing again must not take the focus from who works with the keyboard.
    const focused = byId("people").contains(document.activeElement) ? document.activeElement.ariaLabel : null;
    byId("people").replaceChildren(...(rows.length ? rows : [el("li", "empty", "Nobody is enrolled yet.")]));
    [...byId("people").querySelectorAll("button")].find((one) => one.ariaLabel === focused)?.focus();
    byId("people-summary").textContent = `${this.people.size}${this.cursor ? "+" : ""} enrolled`;
    byId("more-people").hidden = !this.cursor;
  }

  row(person) {
    const count = person.templates.reduce((sum, held) => sum + held.count, 0);
    const sites = person.sites.includes("*") ? "every site" : person.sites.join(", ");
    const facts = `${person.display_name ? `${person.user_id} · ` : ""}${plural(count, "template", "templates")} · ${sites}`;
    return el(
      "li",
      "row",
      el("div", "what", el("strong", "", person.display_name ?? person.user_id), el("span", "hint", facts)),
      el("div", "marks", person.flag ? badge(person.flag, "calm") : null, ...this.actions(person.user_id)),
    );
  }

  actions(userId) {
    if (this.asked !== userId) {
      const ask = button("Delete", "quiet", () => this.ask(userId));
      ask.setAttribute("aria-label", `Delete ${userId}`);
      return [ask];
    }
    const sure = button("Yes, delete", "danger", () => this.attempt(() => this.remove(userId)));
    sure.setAttribute("aria-label", `Yes, delete ${userId}`);
    const keep = button("Keep", "quiet", () => this.ask(null));
    keep.setAttribute("aria-label", `Keep ${userId}`);
    return [sure, keep];
  }

  ask(userId) {
    this.asked = userId;
    this.draw();
    byId("people").querySelector(".danger")?.focus();
  }

  deletedRow(userId, said) {
    const all = said.confirmed_count === said.device_count;
    const text = `${said.confirmed_count} of ${plural(said.device_count, "camera has", "cameras have")} confirmed`;
    const waiting = said.waiting.slice(0, 5).join(", ");
    return el(
      "li",
      "row gone",
      el("div", "what", el("strong", "", userId), el("span", "hint", waiting ? `waiting for ${waiting}` : "deleted")),
      el("div", "marks", badge(text, all ? "good" : "warn")),
    );
  }

  async attempt(work) {
    try {
      await work();
    } catch (error) {
      if (!this.onRefused(error)) {
        this.say(error.message, true);
      }
    }
  }

  say(text, failed = false) {
    byId("notice").textContent = text;
    byId("notice").classList.toggle("error", failed);
  }
}
