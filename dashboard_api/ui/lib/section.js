// A part of the page, with a line that says what became of what somebody did there.

export class Section {
  /** `notice` is the line; `onRefused(error)` says whether it was the key. */
  constructor(notice, onRefused) {
    this.notice = notice;
    this.onRefused = onRefused;
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
    this.notice.textContent = text;
    this.notice.classList.toggle("error", failed);
  }
}
