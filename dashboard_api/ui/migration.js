// The move from one embedding space to another: its steps, and the people and cameras of each site.

import { getJson } from "/ui/lib/api.js";
import { badge, button, byId, el, keyed, plural } from "/ui/lib/dom.js";

const STEPS = {
  record: "New space on record with limits",
  api: "API",
  people: "People",
  cameras: "Cameras",
  removal: "Old space removed",
};
const PAGE = 1000;

let offered = [];
let latest = 0;

/** Offer the pairs of `spaces` that one modality has; without one there is no form. */
export function offerMigration(spaces) {
  const ids = spaces.map((space) => space.space);
  if (ids.join() === offered.join()) {
    return;
  }
  offered = ids;
  const form = byId("migration");
  fill(form.elements.old, ids.filter((id) => replacements(id).length));
  fillNew();
  form.hidden = !form.elements.old.options.length;
}

export function clearMigration() {
  latest += 1;
  offered = [];
  byId("migration").hidden = true;
  byId("migration-state").replaceChildren();
}

const modality = (id) => id.split(":")[0];
const replacements = (id) => offered.filter((other) => other !== id && modality(other) === modality(id));

function fill(select, ids) {
  const chosen = select.value;
  select.replaceChildren(...ids.map((id) => new Option(id, id, false, id === chosen)));
}

function fillNew() {
  const { old, new: replacing } = byId("migration").elements;
  fill(replacing, old.value ? replacements(old.value) : []);
}

async function show() {
  const { old, new: replacing } = byId("migration").elements;
  const path = `/api/v1/spaces/${encodeURIComponent(replacing.value)}/migration`;
  const query = `from=${encodeURIComponent(old.value)}`;
  const request = (latest += 1);
  let content;
  try {
    content = state(await getJson(`${path}?${query}`), () => download(`${path}/missing?limit=${PAGE}&${query}`));
  } catch (problem) {
    content = [el("p", "error", problem.message)];
  }
  if (request === latest) {
    byId("migration-state").replaceChildren(...content);
  }
}

function state(migration, save) {
  const { steps, sites, missing } = migration;
  const next = steps.find((step) => !step.done);
  const counts = [
    `${plural(migration.in_both, "person", "people")} in both`,
    `${migration.only_old} in ${migration.old} alone`,
    migration.withheld ? `${migration.withheld} of these without consent` : null,
    `${migration.only_new} in ${migration.new} alone`,
  ];
  const list = el("ol", "rows", ...steps.map((step) => stepRow(step, step === next)));
  list.ariaLabel = "Steps";
  const places = el("ul", "rows", ...sites.map(siteRow));
  places.ariaLabel = "Sites";
  const saving = missing ? button(`Save the list of ${plural(missing, "missing person", "missing people")}`, "quiet", save) : null;
  return [list, el("p", "hint", counts.filter(Boolean).join(" · ")), places, saving].filter(Boolean);
}

function stepRow({ step, done, detail }, isNext) {
  const mark = done ? badge("done", "good") : isNext ? badge("next", "warn") : badge("open", "calm");
  const what = el("div", "what", el("strong", "", STEPS[step] ?? step), el("span", "hint", detail));
  return keyed(step, el("li", "row", what, el("div", "marks", mark)));
}

function siteRow(site) {
  const counts = [
    `${site.enrolled} of ${plural(site.identities, "person", "people")}`,
    `cameras: ${site.on_old.length} old, ${site.on_new.length} new, ${site.elsewhere.length} other`,
  ];
  const what = el(
    "div",
    "what",
    el("strong", "", site.site_id ?? "no site"),
    el("span", "hint", counts.join(" · ")),
    site.warning ? el("span", "problem", site.warning) : null,
  );
  const mark = site.ready ? badge("may change", "good") : badge("not yet", "calm");
  return keyed(site.site_id ?? "", el("li", "row", what, el("div", "marks", mark)));
}

/** Save everyone that `path` lists as JSON lines. The key is a header, so a link alone would get nothing. */
async function download(path) {
  const lines = [];
  try {
    let cursor = "";
    do {
      const page = await getJson(`${path}${cursor}`);
      lines.push(...page.items.map((item) => `${JSON.stringify(item)}\n`));
      cursor = page.next_cursor ? `&cursor=${page.next_cursor}` : "";
    } while (cursor);
  } catch (problem) {
    window.alert(`the list was not saved: ${problem.message}`);
    return;
  }
  const link = el("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  link.download = "missing.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
}

byId("migration").elements.old.addEventListener("change", fillNew);
byId("migration").addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
