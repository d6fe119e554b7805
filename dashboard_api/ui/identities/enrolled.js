// Enrolled identities: list, delete, and follow the cameras' confirmations.

import { getJson, sendJson } from "/ui/lib/api.js";
import { confirmationsBadge, waitingFor } from "/ui/identities/confirmations.js";
import { DeletedIdentities } from "/ui/identities/deleted.js";
import { badge, button, byId, el, keyed, plural } from "/ui/lib/dom.js";
import { EnrollmentForm } from "/ui/identities/enrollment.js";
import { identityList, identityPath } from "/ui/identities/list.js";
import { may } from "/ui/lib/role.js";
import { drawReleased, showRows } from "/ui/lib/rows.js";
import { Section } from "/ui/lib/section.js";

const PAGE = 50;
const CONFIRMATION_MS = 500;

export class EnrolledIdentities extends Section {
  /** `onChanged` is called when events may have changed. */
  constructor(signOutIfRejected, onChanged) {
    super(byId("notice"), signOutIfRejected);
    this.list = identityList(PAGE);
    this.deleted = new DeletedIdentities(this, async () => {
      onChanged();
      await this.refresh();
    });
    this.showsDeleted = false;
    this.deleting = new Map();
    this.deleteCandidate = null;
    byId("show-current").addEventListener("click", () => this.attempt(() => this.show(false)));
    byId("show-deleted").addEventListener("click", () => this.attempt(() => this.show(true)));
    byId("more-identities").addEventListener("click", () => this.attempt(() => this.more()));
    this.enrollment = new EnrollmentForm(this, async (userId) => {
      this.deleting.delete(userId);
      await this.refresh();
    });
  }

  nameOf(userId) {
    return this.list.items.get(userId)?.display_name ?? null;
  }

  /** Remove everything that belongs to a session. */
  clear() {
    this.list = identityList(PAGE);
    this.deleted.clear();
    this.deleting.clear();
    this.enrollment.clear();
    this.showsDeleted = false;
    this.deleteCandidate = null;
    this.showNotice("");
    this.draw();
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

  /** Refresh the deleted identities while they are shown, since cameras confirm one by one. */
  async refreshDeleted() {
    if (this.showsDeleted) {
      await this.deleted.refresh();
      this.draw();
    }
  }

  async more() {
    await (this.showsDeleted ? this.deleted : this.list).more();
    this.draw();
  }

  async remove(userId) {
    this.deleteCandidate = null;
    await sendJson("DELETE", identityPath(userId));
    this.showNotice(`${userId} is deleted.`);
    // A refresh that began before the deletion would bring the row back.
    await this.list.refresh();
    await this.followConfirmations(userId);
  }

  /** Load and show the confirmations of a deletion until every camera has confirmed it. */
  async followConfirmations(userId) {
    let waiting = true;
    try {
      const confirmations = await getJson(`${identityPath(userId)}/confirmations`);
      waiting = confirmations.deleted && confirmations.waiting.length > 0;
      if (confirmations.deleted) {
        this.deleting.set(userId, confirmations);
      } else {
        this.deleting.delete(userId);
      }
      this.draw();
    } finally {
      const again = () => this.deleting.has(userId) && this.attempt(() => this.followConfirmations(userId));
      if (waiting) {
        setTimeout(again, CONFIRMATION_MS);
      }
    }
  }

  draw() {
    drawReleased(this, () => this.drawNow());
  }

  drawNow() {
    const list = this.showsDeleted ? this.deleted.list : this.list;
    const rows = this.showsDeleted
      ? this.deleted.rows()
      : [
          ...[...this.deleting].map(([userId, confirmations]) => this.deletedRow(userId, confirmations)),
          ...[...this.list.items.values()].map((identity) => this.row(identity)),
        ];
    const empty = this.showsDeleted ? "No deleted identities." : "No enrolled identities yet.";
    showRows(byId("identities"), rows.length ? rows : [el("li", "empty", empty)]);
    byId("identities-summary").textContent = `${list.count} ${this.showsDeleted ? "deleted" : "enrolled"}`;
    byId("more-identities").hidden = !list.cursor;
    byId("enroll").hidden = this.showsDeleted || !may.change;
    byId("show-current").setAttribute("aria-pressed", !this.showsDeleted);
    byId("show-deleted").setAttribute("aria-pressed", this.showsDeleted);
  }

  row(identity) {
    const withheld = Object.keys(identity.consent).filter((modality) => !identity.consent[modality]);
    const what = el(
      "div",
      "what",
      el("strong", "", identity.display_name ?? identity.user_id),
      el("span", "hint", this.facts(identity)),
    );
    const marks = [
      identity.kind === "visitor" ? badge("visitor", "calm") : null,
      withheld.length ? badge(`no consent: ${withheld.join(", ")}`, "warn") : null,
      identity.flag ? badge(identity.flag, "calm") : null,
      identity.similar_ids.length ? badge(`similar id: ${identity.similar_ids.join(", ")}`, "warn") : null,
      ...this.actions(identity.user_id),
    ];
    return keyed(identity.user_id, el("li", "row", what, el("div", "marks", ...marks)));
  }

  facts(identity) {
    const count = identity.templates.reduce((sum, template) => sum + template.count, 0);
    const sources = new Set(identity.external.map((key) => key.source_system));
    const facts = [
      identity.display_name ? identity.user_id : null,
      plural(count, "template", "templates"),
      identity.sites.includes("*") ? "every site" : identity.sites.join(", "),
      sources.size ? `from ${[...sources].join(", ")}` : null,
    ];
    return facts.filter(Boolean).join(" · ");
  }

  actions(userId) {
    if (!may.change) {
      return [];
    }
    if (this.deleteCandidate !== userId) {
      return [this.action("Delete", userId, "quiet", () => this.confirmDelete(userId))];
    }
    return [
      this.action("Yes, delete", userId, "danger", () => this.attempt(() => this.remove(userId))),
      this.action("Keep", userId, "quiet", () => this.confirmDelete(null)),
    ];
  }

  action(text, userId, kind, work) {
    const made = button(text, kind, work);
    made.setAttribute("aria-label", `${text} ${userId}`);
    return made;
  }

  /** Show the second question before `userId` is deleted; null takes it away. */
  confirmDelete(userId) {
    this.deleteCandidate = userId;
    this.draw();
    byId("identities").querySelector(".danger")?.focus();
  }

  deletedRow(userId, confirmations) {
    const what = el("div", "what", el("strong", "", userId), el("span", "hint", waitingFor(confirmations) ?? "deleted"));
    return keyed(`deleted ${userId}`, el("li", "row gone", what, el("div", "marks", confirmationsBadge(confirmations))));
  }
}
