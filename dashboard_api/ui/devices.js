// Cameras: the last report of each, and how far it has applied the changes of identities.

import { getJson, sendJson } from "/ui/lib/api.js";
import { ago, badge, button, byId, el, keyed, plural } from "/ui/lib/dom.js";
import { may } from "/ui/lib/role.js";
import { drawReleased, showRows } from "/ui/lib/rows.js";

const MAX_SHOWN = 1000;
const BUILT_IN_SPACE = "face:resnet29-512";

export async function refreshDevices() {
  const [devices, sync] = await Promise.all([
    getJson(`/api/v1/devices?limit=${MAX_SHOWN}`),
    getJson("/api/v1/sync/status"),
  ]);
  drawReleased(refreshDevices, () => draw(devices, sync));
}

function draw(devices, sync) {
  const positions = new Map(sync.devices.map((device) => [device.device_id, device]));
  const rows = devices.items.map((device) => row(device, positions.get(device.device_id)));
  showRows(byId("devices"), rows.length ? rows : [el("li", "empty", "No registered cameras yet.")]);
  byId("built-in").hidden = !devices.items.some((device) => BUILT_IN_SPACE in (device.info?.spaces ?? {}));
  byId("sync-summary").textContent =
    `${sync.up_to_date} of ${plural(sync.devices.length, "camera", "cameras")} up to date · version ${sync.version}`;
}

function row(device, position) {
  const heartbeat = device.heartbeat ?? {};
  const facts = [
    device.site_id ?? "not registered",
    `seen ${ago(device.last_seen)}`,
    heartbeat.fps === undefined ? null : `${heartbeat.fps.toFixed(1)} fps`,
    heartbeat.outbox_depth ? `${heartbeat.outbox_depth} waiting to be sent` : null,
  ];
  const what = el(
    "div",
    "what",
    el("strong", "", device.device_id),
    el("span", "hint", facts.filter(Boolean).join(" · ")),
    ...device.problems.map((problem) => el("span", "problem", problem.detail)),
  );
  const marks = [stateBadge(device), cameraBadge(heartbeat), degradedBadge(device), syncBadge(position)];
  const actions = may.administer ? [button("Decommission", "quiet", () => decommission(device.device_id))] : [];
  return keyed(device.device_id, el("li", "row", what, el("div", "marks", ...marks, ...actions)));
}

async function decommission(deviceId) {
  const question = `Decommission ${deviceId}? Its reports are deleted, and no deletion waits for it any more.`;
  if (!window.confirm(question)) {
    return;
  }
  try {
    await sendJson("DELETE", `/api/v1/devices/${encodeURIComponent(deviceId)}`);
    await refreshDevices();
  } catch (problem) {
    window.alert(`${deviceId} was not decommissioned: ${problem.message}`);
  }
}

function stateBadge(device) {
  if (device.state === "online" && device.silent) {
    return badge("silent", "warn");
  }
  const kinds = { online: "good", lost: "bad", stopped: "calm", "never-seen": "calm" };
  return badge(device.state.replace("-", " "), kinds[device.state]);
}

function cameraBadge(heartbeat) {
  const badges = { reopening: badge("no picture", "bad"), ended: badge("video ended", "calm") };
  return badges[heartbeat.camera] ?? null;
}

function degradedBadge(device) {
  const degraded = device.problems.length || device.heartbeat?.state === "degraded";
  return degraded ? badge("degraded", "warn") : null;
}

function syncBadge(position) {
  if (!position || position.version === null) {
    return badge("not synced", "calm");
  }
  return position.up_to_date
    ? badge("up to date", "good")
    : badge(`at ${position.version} of ${position.site_version}`, "warn");
}
