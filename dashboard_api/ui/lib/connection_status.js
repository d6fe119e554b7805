// The status of the connection to the API: live while every section gets its answers.

export class ConnectionStatus {
  constructor(element) {
    this.element = element;
    this.failing = new Set();
  }

  /** Record whether `section`, any object, gets its answers. */
  set(section, live) {
    this.failing[live ? "delete" : "add"](section);
    const failing = this.failing.size > 0;
    this.element.textContent = failing ? "connecting again" : "live";
    this.element.classList.toggle("broken", failing);
  }
}
