// A list of the API, loaded page by page up to the requested length.

import { getJson } from "/ui/lib/api.js";

const MAX_PAGE = 1000;

export class PagedList {
  /** `query` holds further parameters of `path`; `keyOf(item)` identifies an item. */
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

  /** Load the requested number of items; a later refresh overrides this one. */
  async refresh() {
    const turn = (this.turn += 1);
    const items = new Map();
    let cursor = null;
    do {
      cursor = await this.load(items, cursor, Math.min(this.wanted - items.size, MAX_PAGE));
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

  /** Load the page at `cursor` into `items` and return the cursor of the next page. */
  async load(items, cursor, limit) {
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await getJson(`${this.path}?limit=${limit}${this.query}${after}`);
    for (const item of page.items) {
      items.set(this.keyOf(item), item);
    }
    return page.next_cursor;
  }
}
