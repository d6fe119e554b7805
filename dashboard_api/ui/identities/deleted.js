// Who is deleted, merged or erased, which cameras have confirmed it, and the ways back or out for good.

import { getJson, sendJson } from "/ui/lib/api.js";
import { ago, badge, button, byId, el, plural } from "/ui/lib/dom.js";
import { path, peopleList } from "/ui/identities/list.js";

const PAGE = 20;

export function confirmedBadge(said) {
  const text = `${said.confirmed_count} of ${plural(said.device_count, "camera has", "cameras have")} confirmed`;
  return badge(text, said.confirmed_count === said.device_count ? "good" : "warn");
}

export class Deleted {
  /** `onChanged` is awaited when people have come back or events have changed. */
  constructor(page, onChanged) {
    this.page = page;
    this.onChanged = onChanged;
    this.list = peopleList(PAGE, "&deleted=only");
    this.confirmations = new Map();
    this.receipts = new Map();
    this.asked = null;
    this.mayErase = false;
  }

  clear() {
    this.list = peopleList(PAGE, "&deleted=only");
    this.confirmations.clear();
    this.receipts.clear();
    this.asked = null;
  }

  async refresh() {
    await this.list.refresh();
    await this.confirm();
  }

  async more() {
    await this.list.more();
    await this.confirm();
  }

  /** Ask who has confirmed, but for those of whom all have. */
  async confirm() {
    for (const person of this.list.items.values()) {
      const known = this.confirmations.get(person.user_id);
      if (known?.version !== person.version || known.waiting.length) {
        this.confirmations.set(person.user_id, await getJson(`${path(person.user_id)}/confirmations`));
      }
      const receipt = this.receipts.get(person.user_id);
      if (receipt?.state === "open") {
        this.receipts.set(person.user_id, await getJson(`/api/v1/erasures/${receipt.erasure_id}`));
      }
    }
  }

  rows() {
    return [...this.list.items.values()].map((person) => this.row(person));
  }

  row(person) {
    const said = this.confirmations.get(person.user_id);
    return el(
      "li",
      "row gone",
      el(
        "div",
        "what",
        el("strong", "", person.display_name ?? person.user_id),
        el("span", "hint", this.facts(person)),
        said?.waiting.length ? el("span", "hint", `waiting for ${said.waiting.slice(0, 5).join(", ")}`) : null,
      ),
      el("div", "marks", said ? confirmedBadge(said) : null, ...this.actions(person)),
    );
  }

  facts(person) {
    const receipt = this.receipts.get(person.user_id);
    const facts = [
      person.display_name ? person.user_id : null,
      person.merged_into ? `merged into ${person.merged_into}` : person.erased ? "erased" : "deleted",
      person.updated_at ? ago(person.updated_at) : null,
      receipt ? `receipt ${receipt.erasure_id}: ${receipt.summary}, ${receipt.state}` : null,
    ];
    return facts.filter(Boolean).join(" · ");
  }

  actions(person) {
    const userId = person.user_id;
    if (person.erased) {
      return [];
    }
    if (this.asked === userId) {
      return [
        this.named("Yes, erase for ever", userId, "danger", () => this.erase(userId)),
        this.named("Keep", userId, "quiet", () => this.ask(null)),
      ];
    }
    if (person.merged_into) {
      return [this.named("Undo merge", userId, "quiet", () => this.bringBack(userId, "unmerge"))];
    }
    return [
      this.named("Restore", userId, "quiet", () => this.bringBack(userId, "restore")),
      this.mayErase ? this.named("Erase", userId, "quiet", () => this.ask(userId)) : null,
    ];
  }

  named(text, userId, kind, work) {
    const made = button(text, kind, () => this.page.attempt(work));
    made.setAttribute("aria-label", `${text} ${userId}`);
    return made;
  }

  ask(userId) {
    this.asked = userId;
    this.page.draw();
    byId("people").querySelector(".danger")?.focus();
  }

  async bringBack(userId, how) {
    await sendJson("POST", `${path(userId)}/${how}`);
    this.page.say(`${userId} is back.`);
    await this.onChanged();
  }

  async erase(userId) {
    this.asked = null;
    this.receipts.set(userId, await sendJson("POST", `${path(userId)}/erase`));
    this.page.say(`${userId} is erased. Keep the number of the receipt: nothing else will lead to it.`);
    await this.onChanged();
  }
}
