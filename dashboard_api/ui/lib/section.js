// A section of the page, with a line for the result of the last action.

export class Section {
  /** `notice` is the line; `signOutIfRejected(error)` returns true if the API rejected the key. */
  constructor(notice, signOutIfRejected) {
    this.notice = notice;
    this.signOutIfRejected = signOutIfRejected;
  }

  async attempt(work) {
    try {
      await work();
    } catch (error) {
      if (!this.signOutIfRejected(error)) {
        this.showNotice(error.message, true);
      }
    }
  }

  showNotice(text, failed = false) {
    this.notice.textContent = text;
    this.notice.classList.toggle("error", failed);
  }
}
