// Events, newest first, each with its image until that expires.

import { EVENT_TYPES } from "/ui/event_types.js";
import { getJson, request } from "/ui/lib/api.js";
import { badge, byId, el } from "/ui/lib/dom.js";

const MAX_SHOWN = 60;

export class EventList {
  /** `nameOf(userId)` is the name of an enrolled identity, or null. */
  constructor(nameOf) {
    this.nameOf = nameOf;
    this.shown = new Set();
  }

  /** Add the recorded events to those that the stream has brought. */
  async refresh() {
    const page = await getJson(`/api/v1/events?limit=${MAX_SHOWN}`);
    for (const event of page.items.reverse()) {
      this.add(event);
    }
    if (!byId("events").children.length) {
      byId("events").append(el("li", "empty", "No events yet."));
    }
  }

  add(event) {
    const name = `${event.device_id}/${event.event_id}`;
    if (this.shown.has(name)) {
      return;
    }
    this.shown.add(name);
    const list = byId("events");
    list.querySelector(".empty")?.remove();
    const row = this.row(event);
    row.dataset.name = name;
    row.dataset.at = event.received_at;
    const older = [...list.children].find((other) => other.dataset.at <= event.received_at);
    list.insertBefore(row, older ?? null);
    while (list.children.length > MAX_SHOWN) {
      this.drop(list.lastElementChild);
    }
  }

  clear() {
    for (const row of [...byId("events").children]) {
      this.drop(row);
    }
  }

  drop(row) {
    const image = row.querySelector("img");
    if (image) {
      URL.revokeObjectURL(image.src);
    }
    this.shown.delete(row.dataset.name);
    row.remove();
  }

  row(event) {
    const subject = event.user_id ?? "Unknown person";
    const time = el("time", "hint", new Date(event.timestamp).toLocaleTimeString());
    time.dateTime = event.timestamp;
    time.title = new Date(event.timestamp).toLocaleString();
    const confidence = `${Math.round(event.confidence * 100)} %`;
    const liveness = event.metadata?.liveness;
    const isMeasured = typeof liveness?.score === "number";
    const live = isMeasured ? ` · liveness ${liveness.score.toFixed(2)} (${liveness.method})` : "";
    const { label, kind } = EVENT_TYPES[event.event_type] ?? { label: event.event_type, kind: "calm" };
    const row = el(
      "li",
      "row",
      el("div", "thumb"),
      el(
        "div",
        "what",
        el("strong", "", this.nameOf(event.user_id) ?? subject),
        el("span", "hint", `${event.device_id} · ${confidence}${event.emotion_code ? ` · ${event.emotion_code}` : ""}${live}`),
      ),
      el("div", "marks", badge(label, kind), time),
    );
    if (event.has_image) {
      this.loadImage(event, row.querySelector(".thumb"), `${subject} at ${event.device_id}`);
    }
    return row;
  }

  async loadImage(event, thumb, description) {
    const ids = [event.device_id, event.event_id].map(encodeURIComponent);
    try {
      const data = await (await request(`/api/v1/events/${ids.join("/")}/image`)).blob();
      const image = el("img");
      image.alt = description;
      image.src = URL.createObjectURL(data);
      image.addEventListener("error", () => image.remove());
      thumb.append(image);
    } catch {
      // Images expire: the thumbnail stays empty.
      thumb.title = "the image has expired";
    }
  }
}
