// The name of a detected person and the facts that the page shows.

import { ago, clock, plural } from "/ui/lib/dom.js";

export const ALL = "/api/detected-persons";

export const path = (id) => `${ALL}/${id}`;

export const numbered = (id) => `Person ${id}`;

export const nameOf = (person) => person.assigned_name ?? person.name ?? person.user_id ?? numbered(person.global_id);

/** Return one line with the cameras of a person, and since when. */
export function summary(person) {
  const facts = [
    nameOf(person) === numbered(person.global_id) ? null : numbered(person.global_id),
    (person.cameras ?? person.cameras_visited).join(", "),
    person.current_site,
    person.since ? `since ${clock(person.since)}` : `seen ${ago(person.last_seen)}`,
    plural(person.total_appearances, "appearance", "appearances"),
  ];
  return facts.filter(Boolean).join(" · ");
}

/** Return terms and values of a person from `GET /{global_id}`; unknown values are left out. */
export function facts(person) {
  return [
    ["First seen", clock(person.first_seen)],
    ["Last seen", `${clock(person.last_seen)}${person.current_site ? `, ${person.current_site}` : ""}`],
    ["Cameras", person.cameras_visited.join(", ")],
    ["Height", height(person)],
    ["Enrolled as", person.user_id ? `${person.user_id}, ${linkedBy(person.linked_by)}` : "not enrolled"],
    ["Also seen as", person.merged.map(numbered).join(", ")],
  ].filter(([, known]) => known);
}

function height(person) {
  if (person.avg_height_meters !== null) {
    return `${person.avg_height_meters.toFixed(2)} m`;
  }
  return person.avg_height_pixels === null ? null : `${Math.round(person.avg_height_pixels)} px in the picture`;
}

const linkedBy = (author) => (author === "face" ? "recognised by face" : `linked by ${author}`);
