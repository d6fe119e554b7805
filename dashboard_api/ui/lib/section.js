// A section of the page, with a line for the results of the last actions.

import { el } from "/ui/lib/dom.js";

const MAX_RESULTS = 3;

export class Section {
  /** `notice` is the line; `signOutIfRejected(error)` returns true if the API rejected the key. */
  constructor(notice, signOutIfRejected) {
    this.notice = notice;
    this.signOutIfRejected = signOutIfRejected;
    this.running = 0;
    this.results = [];
  }

  /** Await `work` and show its error. Results of actions that run at the same time stand side by side. */
  async attempt(work) {
    if (this.running === 0) {
      this.results = [];
    }
    this.running += 1;
    try {
      await work();
    } catch (error) {
      if (!this.signOutIfRejected(error)) {
        this.showNotice(error.message, true);
      }
    } finally {
      this.running -= 1;
    }
  }

  showNotice(text, failed = false) {
    const others = this.results.filter((other) => other.text !== text);
    this.results = text ? [...others, { text, failed }].slice(-MAX_RESULTS) : [];
    this.notice.replaceChildren(...this.results.map((result) => el("span", "", result.text)));
    this.notice.classList.toggle("error", this.results.some((result) => result.failed));
  }
}
