// The form that enrolls an identity with photos: one request, which changes everything or nothing.

import { Problem, request } from "/ui/lib/api.js";
import { byId } from "/ui/lib/dom.js";
import { limits } from "/ui/lib/limits.js";

export class EnrollmentForm {
  /** `section` shows the result; `onEnrolled(userId)` is awaited after an enrollment. */
  constructor(section, onEnrolled) {
    this.section = section;
    this.onEnrolled = onEnrolled;
    this.form = byId("enroll");
    this.add = byId("add-photos");
    this.form.addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      this.section.attempt(() => this.send("create"));
    });
    this.form.addEventListener("input", () => this.offerToAdd(null));
    this.add.addEventListener("click", () => this.section.attempt(() => this.send("add")));
  }

  clear() {
    this.form.reset();
    this.offerToAdd(null);
  }

  /** Offer to add the photos to the enrolled identity `userId`; null takes the offer away. */
  offerToAdd(userId) {
    this.add.hidden = userId === null;
    this.add.textContent = userId === null ? "" : `Add to ${userId}`;
  }

  async send(mode) {
    const body = new FormData(this.form);
    const userId = body.get("user_id").trim();
    body.set("mode", mode);
    if (mode === "add") {
      body.delete("display_name");
    }
    this.offerToAdd(null);
    this.setDisabled(true);
    try {
      const response = await request("/api/v1/enrollments", { method: "POST", body, limit: limits.uploadMs });
      const enrolled = await response.json();
      this.clear();
      this.section.showNotice(resultOf(mode, enrolled));
      await this.onEnrolled(enrolled.user_id);
    } catch (error) {
      if (error instanceof Problem && error.code === "identity-exists") {
        this.offerToAdd(userId);
      }
      throw error;
    } finally {
      this.setDisabled(false);
    }
  }

  setDisabled(disabled) {
    for (const button of this.form.querySelectorAll("button")) {
      button.disabled = disabled;
    }
  }
}

function resultOf(mode, { user_id: userId, templates_added: added, photos }) {
  const result =
    mode === "create" ? `${userId} is enrolled.` : `${userId} has ${added} of ${photos.length} photos more.`;
  return [result, ...photos.map(scoreOf)].join("\n");
}

/** Return the score of a photo in per cent, and sentences with what would make a better one. */
function scoreOf({ file_name: fileName, quality, warnings }) {
  const sentences = warnings.map(({ detail }) => detail).join("; ");
  return `${fileName}: quality ${Math.round(quality * 100)} %${sentences && `; ${sentences}`}`;
}
