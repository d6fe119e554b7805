// People: enroll by photo, delete, and see which cameras have confirmed it.

import { getJson, request, sendJson } from "/ui/lib/api.js";
import { Deleted, confirmedBadge } from "/ui/identities/deleted.js";
import { badge, button, byId, el, plural } from "/ui/lib/dom.js";
import { path, peopleList } from "/ui/identities/list.js";
import { Section } from "/ui/lib/section.js";

const PAGE = 50;
const CONFIRMATION_MS = 500;

export class People extends Section {
  /** `onRefused(error)` says whether it was the key; `onChanged` is called when events may have changed. */
  constructor(onRefused, onChanged) {
    super(byId("notice"), onRefused);
    this.list = peopleList(PAGE);
    this.deleted = new Deleted(this, async () => {
      onChanged();
      await this.refresh();
    });
    this.showsDeleted = false;
    this.deleting = new Map();
    this.asked = null;
    byId("show-current").addEventListener("click", () => this.attempt(() => this.show(false)));
    byId("show-deleted").addEventListener("click", () => this.attempt(() => this.show(true)));
    byId("more-people").addEventListener("click", () => this.attempt(() => this.more()));
    byId("enroll").addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      this.attempt(() => this.enroll(submitted.target));
    });
  }

  name(userId) {
    return this.list.items.get(userId)?.display_name ?? null;
  }

  /** Forget everything of a session. */
  clear() {
    this.list = peopleList(PAGE);
    this.deleted.clear();
    this.deleting.clear();
    this.showsDeleted = false;
    this.say("");
  }

  async show(deleted) {
    this.showsDeleted = deleted;
    await this.refresh();
  }

  async refresh() {
    await this.list.refresh();
    if (this.showsDeleted) {
      await this.deleted.refresh();
    }
    this.draw();
  }

  /** While the deleted are shown, cameras confirm. */
  async followDeleted() {
    if (this.showsDeleted) {
      await this.deleted.refresh();
      this.draw();
    }
  }

  async more() {
    await (this.showsDeleted ? this.deleted : this.list).more();
    this.draw();
  }

  async enroll(form) {
    const fields = new FormData(form);
    const userId = fields.get("user_id").trim();
    const photo = fields.get("photo");
    const submit = form.querySelector("button");
    submit.disabled = true;
    try {
      const known = this.list.items.has(userId);
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
    this.list.items.delete(userId);
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
    const list = this.showsDeleted ? this.deleted.list : this.list;
    const rows = this.showsDeleted
      ? this.deleted.rows()
      : [
          ...[...this.deleting].map(([userId, said]) => this.deletedRow(userId, said)),
          ...[...this.list.items.values()].map((person) => this.row(person)),
        ];
    const nobody = this.showsDeleted ? "Nobody is deleted." : "Nobody is enrolled yet.";
    // Drawing again must not take the focus from who works with the keyboard.
    const focused = byId("people").contains(document.activeElement) ? document.activeElement.ariaLabel : null;
    byId("people").replaceChildren(...(rows.length ? rows : [el("li", "empty", nobody)]));
    [...byId("people").querySelectorAll("button")].find((one) => one.ariaLabel === focused)?.focus();
    byId("people-summary").textContent = `${list.count} ${this.showsDeleted ? "deleted" : "enrolled"}`;
    byId("more-people").hidden = !list.cursor;
    byId("enroll").hidden = this.showsDeleted;
    byId("show-current").setAttribute("aria-pressed", !this.showsDeleted);
    byId("show-deleted").setAttribute("aria-pressed", this.showsDeleted);
  }

  row(person) {
    const count = person.templates.reduce((sum, held) => sum + held.count, 0);
    const sites = person.sites.includes("*") ? "every site" : person.sites.join(", ");
    const sources = new Set(person.external.map((key) => key.source_system));
    const facts = [
      person.display_name ? person.user_id : null,
      plural(count, "template", "templates"),
      sites,
      sources.size ? `from ${[...sources].join(", ")}` : null,
    ];
    const withheld = Object.keys(person.consent).filter((modality) => !person.consent[modality]);
    return el(
      "li",
      "row",
      el(
        "div",
        "what",
        el("strong", "", person.display_name ?? person.user_id),
        el("span", "hint", facts.filter(Boolean).join(" · ")),
      ),
      el(
        "div",
        "marks",
        person.kind === "visitor" ? badge("visitor", "calm") : null,
        withheld.length ? badge(`no consent: ${withheld.join(", ")}`, "warn") : null,
        person.flag ? badge(person.flag, "calm") : null,
        ...this.actions(person.user_id),
      ),
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
    const waiting = said.waiting.slice(0, 5).join(", ");
    return el(
      "li",
      "row gone",
      el("div", "what", el("strong", "", userId), el("span", "hint", waiting ? `waiting for ${waiting}` : "deleted")),
      el("div", "marks", confirmedBadge(said)),
    );
  }
}
