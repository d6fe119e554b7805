// People in order of user id, page by page, as far as somebody has asked for them.

import { getJson } from "/ui/api.js";

export const path = (userId) => `/api/v1/identities/${encodeURIComponent(userId)}`;

export class PeopleList {
  constructor(page, query = "") {
    this.people = new Map();
    this.cursor = null;
    this.page = page;
    this.query = query;
  }

  get count() {
    return `${this.people.size}${this.cursor ? "+" : ""}`;
  }

  /** Load as many people again as are shown. */
  async refresh() {
    const wanted = Math.max(this.page, this.people.size);
    const people = new Map();
    let cursor = null;
    do {
      cursor = await this.load(people, cursor);
    } while (cursor && people.size < wanted);
    this.people = people;
    this.cursor = cursor;
  }

  async more() {
    this.cursor = await this.load(this.people, this.cursor);
  }

  /** Read the page behind `cursor` into `people`; the cursor of the page after it. */
  async load(people, cursor) {
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await getJson(`/api/v1/identities?limit=${this.page}${this.query}${after}`);
    for (const person of page.items) {
      people.set(person.user_id, person);
    }
    return page.next_cursor;
  }
}
