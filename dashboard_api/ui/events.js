// Events: the newest at the top, each with its picture as long as that is kept.

import { getJson, request } from "/ui/lib/api.js";
import { badge, byId, el } from "/ui/lib/dom.js";

const MOST_SHOWN = 60;
const LABELS = { facial_id: "recognised", emotion: "emotion", visit: "visit", unknown: "unknown person" };
const KINDS = { facial_id: "good", emotion: "calm", visit: "calm", unknown: "warn" };

export class Events {
  constructor(nameOf) {
    this.nameOf = nameOf;
    this.shown = new Set();
  }

  /** Add what is on record to what the stream has told meanwhile. */
  async refresh() {
    const page = await getJson(`/api/v1/events?limit=${MOST_SHOWN}`);
    for (const event of page.items.reverse()) {
      this.add(event);
    }
    if (!byId("events").children.length) {
      byId("events").append(el("li", "empty", "Nothing has been recognised yet."));
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
    while (list.children.length > MOST_SHOWN) {
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
    const who = event.user_id ?? "Somebody unknown";
    const when = el("time", "hint", new Date(event.timestamp).toLocaleTimeString());
    when.dateTime = event.timestamp;
    when.title = new Date(event.timestamp).toLocaleString();
    const sure = `${Math.round(event.confidence * 100)} %`;
    const row = el(
      "li",
      "row",
      el("div", "thumb"),
      el(
        "div",
        "what",
        el("strong", "", this.nameOf(event.user_id) ?? who),
        el("span", "hint", `${event.device_id} · ${sure}${event.emotion_code ? ` · ${event.emotion_code}` : ""}`),
      ),
      el("div", "marks", badge(LABELS[event.event_type] ?? event.event_type, KINDS[event.event_type] ?? "calm"), when),
    );
    if (event.has_image) {
      this.loadImage(event, row.querySelector(".thumb"), `${who} at ${event.device_id}`);
    }
    return row;
  }

  async loadImage(event, place, description) {
    const path = ["/api/v1/events", event.device_id, event.event_id, "image"].map((part, n) =>
      n === 1 || n === 2 ? encodeURIComponent(part) : part,
    );
    try {
      const picture = await (await request(path.join("/"))).blob();
      const image = el("img");
      image.alt = description;
      image.src = URL.createObjectURL(picture);
      image.addEventListener("error", () => image.remove());
      place.append(image);
    } catch {
      // Pictures expire: the place stays empty.
      place.title = "the picture is no longer kept";
    }
  }
}
