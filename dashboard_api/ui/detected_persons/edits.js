// Edits of a detected person: name, link, merge, delete.

import { request, sendJson } from "/ui/lib/api.js";
import { button, el } from "/ui/lib/dom.js";
import { numbered, path } from "/ui/detected_persons/person.js";

export class DetectedPersonEdits {
  /** `page` is the section in which the person with this id is open. */
  constructor(page, id) {
    this.page = page;
    this.id = id;
    this.person = null;
    this.doing = null;
    this.drawn = null;
    this.element = el("div", "changes");
  }

  /** Draw the controls for the person, unless they are unchanged: a form may be in use. */
  show(person) {
    this.person = person;
    const state = JSON.stringify([this.doing, person.user_id, person.merged]);
    if (this.drawn === state) {
      return;
    }
    this.drawn = state;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.ariaLabel : null;
    this.element.replaceChildren(...this.controls());
    if (focused) {
      this.button(focused)?.focus();
    }
  }

  controls() {
    switch (this.doing) {
      case "Rename":
        return [this.form("Name (empty for none)", this.nameField(), "Save", (name) => this.rename(name))];
      case "Link":
        return [this.form("Enrolled as", this.userField(), "Link", (userId) => this.link(userId)), this.offers()];
      case "Merge":
        return [this.form("Is the same as person", this.numberField(), "Merge", (into) => this.merge(into))];
      case "Delete":
        return [
          this.named("Yes, delete", "danger", () => this.page.attempt(() => this.remove())),
          this.named("Keep", "quiet", () => this.stop()),
        ];
      default:
        return this.choices();
    }
  }

  choices() {
    const linking = this.person.user_id
      ? this.named("Unlink", "quiet", () => this.page.attempt(() => this.unlink()))
      : this.named("Link", "quiet", () => this.begin("Link"));
    return [
      this.named("Rename", "quiet", () => this.begin("Rename")),
      linking,
      this.named("Merge", "quiet", () => this.begin("Merge")),
      ...this.person.merged.map((id) =>
        button(`Undo merge of ${id}`, "quiet", () => this.page.attempt(() => this.unmerge(id))),
      ),
      this.named("Delete", "quiet", () => this.begin("Delete")),
    ];
  }

  /** Return a button with the person in its label, for screen readers. */
  named(text, kind, work) {
    const made = button(text, kind, work);
    made.setAttribute("aria-label", this.label(text));
    return made;
  }

  label(text) {
    return `${text} ${numbered(this.id).toLowerCase()}`;
  }

  button(label) {
    return [...this.element.querySelectorAll("button")].find((button) => button.ariaLabel === label);
  }

  begin(what) {
    this.doing = what;
    this.show(this.person);
    this.element.querySelector("input, .danger")?.focus();
    this.element.querySelector("input")?.select();
  }

  /** Show the choices again, with the focus on the button that was used. */
  stop() {
    const from = this.doing;
    this.doing = null;
    this.show(this.person);
    this.button(this.label(from))?.focus();
  }

  // Forms

  form(label, input, text, work) {
    const send = el("button", "primary", text);
    const cancel = this.named("Cancel", "quiet", () => this.stop());
    const form = el("form", "inline", el("label", "", label, input), send, cancel);
    form.addEventListener("keydown", (pressed) => pressed.key === "Escape" && this.stop());
    form.addEventListener("submit", async (submitted) => {
      submitted.preventDefault();
      send.disabled = true;
      await this.page.attempt(() => work(input.value.trim()));
      send.disabled = false;
    });
    return form;
  }

  nameField() {
    const input = el("input");
    input.maxLength = 255;
    input.value = this.person.assigned_name ?? "";
    return input;
  }

  userField() {
    const input = el("input");
    input.required = true;
    input.maxLength = 128;
    input.placeholder = "EMP-12345";
    input.setAttribute("list", "enrolled");
    return input;
  }

  offers() {
    const options = this.page.enrolled().map((person) => {
      const option = el("option", "", person.display_name ?? "");
      option.value = person.user_id;
      return option;
    });
    const list = el("datalist", "", ...options);
    list.id = "enrolled";
    return list;
  }

  numberField() {
    const input = el("input");
    input.required = true;
    input.type = "number";
    input.min = 1;
    return input;
  }

  // Requests

  async rename(name) {
    await sendJson("PATCH", path(this.id), { assigned_name: name || null });
    await this.done(name ? `${numbered(this.id)} is ${name}.` : `${numbered(this.id)} has no name given here.`);
  }

  async link(userId) {
    await sendJson("PUT", `${path(this.id)}/link`, { user_id: userId });
    await this.done(`${numbered(this.id)} is ${userId}.`);
  }

  async unlink() {
    const userId = this.person.user_id;
    await sendJson("DELETE", `${path(this.id)}/link`);
    await this.done(`${numbered(this.id)} is not ${userId}, and will not be taken for them again.`);
  }

  async merge(into) {
    await sendJson("POST", `${path(this.id)}/merge`, { into: Number(into) });
    this.page.opened = Number(into);
    await this.done(`${numbered(this.id)} is now part of person ${into}.`);
  }

  async unmerge(id) {
    await sendJson("POST", `${path(id)}/unmerge`);
    await this.done(`${numbered(id)} is a person of their own again.`);
  }

  async remove() {
    await request(path(this.id), { method: "DELETE" });
    await this.done(`${numbered(this.id)} is deleted.`);
  }

  async done(text) {
    this.page.showNotice(text);
    if (this.doing) {
      this.stop();
    }
    await this.page.refresh();
  }
}
