// Embedding spaces: who is enrolled in which, and whether anything can be matched there.

import { getJson, sendJson } from "/ui/lib/api.js";
import { badge, button, byId, el, keyed, plural } from "/ui/lib/dom.js";
import { may } from "/ui/lib/role.js";
import { drawReleased, showRows } from "/ui/lib/rows.js";
import { offerMigration } from "/ui/migration.js";

export async function refreshSpaces() {
  const spaces = await getJson("/api/v1/spaces");
  drawReleased(refreshSpaces, () => {
    showRows(byId("spaces"), spaces.items.map(row));
    offerMigration(spaces.items);
  });
}

function row(space) {
  const counts = [
    plural(space.identities, "person", "people"),
    plural(space.templates, "template", "templates"),
    plural(space.devices.length, "camera", "cameras"),
    space.detector ? `${space.detector}, ${space.alignment ?? "alignment not recorded"}` : null,
  ];
  const what = el(
    "div",
    "what",
    el("strong", "", space.space),
    el("span", "hint", counts.filter(Boolean).join(" · ")),
    limits(space),
  );
  const marks = [space.default ? badge("default", "calm") : null, space.limits ? null : badge("no limits", "warn")];
  const removable = may.administer && !space.default && !space.devices.length;
  const actions = removable ? [button("Remove space", "quiet", () => remove(space))] : [];
  return keyed(space.space, el("li", "row", what, el("div", "marks", ...marks, ...actions)));
}

function limits({ limits: known, source }) {
  if (!known) {
    return el("span", "problem", "no limits: nothing is matched");
  }
  const numbers = `distance ${known.distance}, margin ${known.margin}, same person ${known.same_person}`;
  return el("span", "hint", [numbers, sourceText(source)].filter(Boolean).join(" · "));
}

function sourceText(source) {
  if (!source) {
    return "";
  }
  const pairs = source.pairs === null || source.pairs === undefined ? "" : ` on ${source.pairs} pairs`;
  const at = source.at ? `, ${source.at.slice(0, 10)}` : "";
  return { shipped: "shipped with the model", calibrated: `calibrated${pairs}${at}`, configured: `configured${at}` }[
    source.kind
  ];
}

async function remove({ space, identities, templates }) {
  const lost = `${plural(templates, "template", "templates")} of ${plural(identities, "person", "people")}`;
  if (!window.confirm(`Remove ${space} with ${lost}? They cannot be brought back.`)) {
    return;
  }
  try {
    await sendJson("DELETE", `/api/v1/spaces/${encodeURIComponent(space)}`);
    await refreshSpaces();
  } catch (problem) {
    window.alert(`${space} was not removed: ${problem.message}`);
  }
}
