// Rows that are updated in place: a press on a button, the focus and a selection survive each refresh.

import { arrange } from "/ui/lib/dom.js";

const MAX_PRESS_MS = 3000;

const held = new Map();
let pressed = false;
let longest = null;

/** Draw now, or while a mouse button or finger is down as soon as it is up; a later `draw` of `section` wins. */
export function drawReleased(section, draw) {
  held.delete(section);
  if (pressed) {
    held.set(section, draw);
  } else {
    draw();
  }
}

/** Make `rows` the children of `list`; a child like a row stays in the page and takes over its content. */
export function showRows(list, rows) {
  const old = [...list.children];
  const shown = rows.map((row) => {
    const place = old.findIndex((other) => isLike(other, row));
    return place < 0 ? row : update(old.splice(place, 1)[0], row);
  });
  arrange(list, shown);
}

// Listeners stay with the element: a button with the same label in the row with the same `data-key` does the same.
function isLike(old, row) {
  const words = (node) => (node.tagName === "BUTTON" ? node.textContent : null);
  return (
    old.tagName === row.tagName &&
    old.dataset.key === row.dataset.key &&
    old.ariaLabel === row.ariaLabel &&
    words(old) === words(row)
  );
}

function update(old, row) {
  for (const name of old.getAttributeNames()) {
    if (!row.hasAttribute(name)) {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of row.attributes) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
  if (!row.children.length && (old.children.length || old.textContent !== row.textContent)) {
    old.textContent = row.textContent;
  } else if (row.children.length) {
    if (!old.children.length) {
      old.textContent = "";
    }
    showRows(old, [...row.children]);
  }
  return old;
}

function release() {
  pressed = false;
  clearTimeout(longest);
  // The click comes after the release and in the same task: draw in the next.
  setTimeout(() => {
    for (const [section, draw] of [...held]) {
      drawReleased(section, draw);
    }
  });
}

addEventListener(
  "pointerdown",
  ({ button }) => {
    if (button === 0) {
      pressed = true;
      clearTimeout(longest);
      longest = setTimeout(release, MAX_PRESS_MS);
    }
  },
  true,
);
addEventListener("pointerup", release, true);
addEventListener("pointercancel", release, true);
addEventListener("blur", release);
