// The status of the connection to the API: live while every section gets its answers.

import { lastHeard } from "/ui/lib/api.js";
import { limits } from "/ui/lib/limits.js";

const CHECK_MS = 500;

export class ConnectionStatus {
  /** `banner` is shown while the API is silent, or a section fails for some time. */
  constructor(element, banner, signal) {
    this.element = element;
    this.banner = banner;
    this.failingSince = new Map();
    const timer = setInterval(() => this.draw(), CHECK_MS);
    signal.addEventListener("abort", () => {
      clearInterval(timer);
      banner.hidden = true;
    });
  }

  /** Record whether `section`, any object, gets its answers. */
  set(section, live) {
    if (live) {
      this.failingSince.delete(section);
    } else if (!this.failingSince.has(section)) {
      this.failingSince.set(section, performance.now());
    }
    this.draw();
  }

  draw() {
    const now = performance.now();
    const silentMs = now - lastHeard.at;
    const silent = silentMs > limits.silentMs;
    const failingMs = now - Math.min(now, ...this.failingSince.values());
    const failing = this.failingSince.size > 0;
    show(this.element, silent || failing ? "connecting again" : "live");
    this.element.classList.toggle("broken", silent || failing);
    const seconds = Math.round(silentMs / 1000);
    show(
      this.banner,
      silent
        ? `Not live: the API has not answered for ${seconds} s. What you see may be out of date.`
        : "Not live: a part of this page gets no answers. What you see may be out of date.",
    );
    this.banner.hidden = !silent && failingMs < limits.failingMs;
  }
}

function show(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
