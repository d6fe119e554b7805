// A list of the API, page by page, as far as somebody has asked for it.

import { getJson } from "/ui/lib/api.js";

const MOST_AT_ONCE = 1000;

export class PagedList {
  /** `path` has no query but for `query`; `keyOf(item)` is what an item is known by. */
  constructor(path, keyOf, page, query = "") {
    this.items = new Map();
    this.cursor = null;
    this.wanted = page;
    this.turn = 0;
    this.path = path;
    this.keyOf = keyOf;
    this.page = page;
    this.query = query;
  }

  get count() {
    return `${this.items.size}${this.cursor ? "+" : ""}`;
  }

  /** Load as many as somebody has asked for, unless that is asked once more meanwhile. */
  async refresh() {
    const turn = (this.turn += 1);
    const items = new Map();
    let cursor = null;
    do {
      cursor = await this.load(items, cursor, Math.min(this.wanted - items.size, MOST_AT_ONCE));
    } while (cursor && items.size < this.wanted);
    if (turn === this.turn) {
      this.items = items;
      this.cursor = cursor;
    }
  }

  async more() {
    this.wanted = this.items.size + this.page;
    await this.refresh();
  }

  /** Read the page behind `cursor` into `items`; the cursor of the page after it. */
  async load(items, cursor, limit) {
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await getJson(`${this.path}?limit=${limit}${this.query}${after}`);
    for (const item of page.items) {
      items.set(this.keyOf(item), item);
    }
    return page.next_cursor;
  }
}
