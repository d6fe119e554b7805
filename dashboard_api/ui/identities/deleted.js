// Deleted, merged and erased identities: confirmations, restore and erase.

import { getJson, sendJson } from "/ui/lib/api.js";
import { ago, button, byId, el, keyed } from "/ui/lib/dom.js";
import { confirmationsBadge, waitingFor } from "/ui/identities/confirmations.js";
import { identityList, identityPath } from "/ui/identities/list.js";
import { may } from "/ui/lib/role.js";

const PAGE = 20;

export class DeletedIdentities {
  /** `section` shows the rows; `onChanged` is awaited after identities or events have changed. */
  constructor(section, onChanged) {
    this.section = section;
    this.onChanged = onChanged;
    this.confirmations = new Map();
    this.receipts = new Map();
    this.clear();
  }

  clear() {
    this.list = identityList(PAGE, "&deleted=only");
    this.confirmations.clear();
    this.receipts.clear();
    this.eraseCandidate = null;
  }

  async refresh() {
    await this.list.refresh();
    await this.loadConfirmations();
  }

  async more() {
    await this.list.more();
    await this.loadConfirmations();
  }

  /** Load confirmations and receipts, except those that are complete. */
  async loadConfirmations() {
    for (const identity of this.list.items.values()) {
      const userId = identity.user_id;
      const known = this.confirmations.get(userId);
      if (known?.version !== identity.version || known.waiting.length) {
        this.confirmations.set(userId, await getJson(`${identityPath(userId)}/confirmations`));
      }
      const receipt = this.receipts.get(userId);
      if (receipt?.state === "open") {
        this.receipts.set(userId, await getJson(`/api/v1/erasures/${receipt.erasure_id}`));
      }
    }
  }

  rows() {
    return [...this.list.items.values()].map((identity) => this.row(identity));
  }

  row(identity) {
    const confirmations = this.confirmations.get(identity.user_id);
    const waiting = confirmations && waitingFor(confirmations);
    const what = el(
      "div",
      "what",
      el("strong", "", identity.display_name ?? identity.user_id),
      el("span", "hint", this.facts(identity)),
      waiting ? el("span", "hint", waiting) : null,
    );
    const marks = [confirmations ? confirmationsBadge(confirmations) : null, ...this.actions(identity)];
    return keyed(identity.user_id, el("li", "row gone", what, el("div", "marks", ...marks)));
  }

  facts(identity) {
    const receipt = this.receipts.get(identity.user_id);
    const facts = [
      identity.display_name ? identity.user_id : null,
      identity.merged_into ? `merged into ${identity.merged_into}` : identity.erased ? "erased" : "deleted",
      identity.updated_at ? ago(identity.updated_at) : null,
      receipt ? `receipt ${receipt.erasure_id}: ${receipt.summary}, ${receipt.state}` : null,
    ];
    return facts.filter(Boolean).join(" · ");
  }

  actions(identity) {
    const userId = identity.user_id;
    if (identity.erased || !may.change) {
      return [];
    }
    if (this.eraseCandidate === userId) {
      return [
        this.action("Yes, erase for ever", userId, "danger", () => this.erase(userId)),
        this.action("Keep", userId, "quiet", () => this.confirmErase(null)),
      ];
    }
    if (identity.merged_into) {
      return [this.action("Undo merge", userId, "quiet", () => this.bringBack(userId, "unmerge"))];
    }
    return [
      this.action("Restore", userId, "quiet", () => this.bringBack(userId, "restore")),
      may.administer ? this.action("Erase", userId, "quiet", () => this.confirmErase(userId)) : null,
    ];
  }

  action(text, userId, kind, work) {
    const made = button(text, kind, () => this.section.attempt(work));
    made.setAttribute("aria-label", `${text} ${userId}`);
    return made;
  }

  /** Show the second question before `userId` is erased; null takes it away. */
  confirmErase(userId) {
    this.eraseCandidate = userId;
    this.section.draw();
    byId("identities").querySelector(".danger")?.focus();
  }

  async bringBack(userId, operation) {
    await sendJson("POST", `${identityPath(userId)}/${operation}`);
    this.section.showNotice(`${userId} is back.`);
    await this.onChanged();
  }

  async erase(userId) {
    this.eraseCandidate = null;
    this.receipts.set(userId, await sendJson("POST", `${identityPath(userId)}/erase`));
    this.section.showNotice(`${userId} is erased. Keep the number of the receipt: nothing else leads to it.`);
    await this.onChanged();
  }
}
