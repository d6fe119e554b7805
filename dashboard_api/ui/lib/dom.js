// Create elements. Text is always inserted as text, never as markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) {
    made.className = className;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Return `row` as the row of `key` in its list; see `showRows`. */
export function keyed(key, row) {
  row.dataset.key = key;
  return row;
}

export const badge = (text, kind) => el("span", `badge ${kind}`, text);

export function button(text, className, onClick) {
  const made = el("button", className, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

export function ago(time, now = Date.now()) {
  if (!time) {
    return "never";
  }
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) {
    return `${seconds} s ago`;
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)} min ago`;
  }
  return clock(time);
}

export const plural = (count, singular, many) => `${count} ${count === 1 ? singular : many}`;

/** Return hours and minutes, with the day unless it is today. */
export function clock(time, now = new Date()) {
  const at = new Date(time);
  const hours = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return at.toDateString() === now.toDateString() ? hours : `${at.toLocaleDateString()}, ${hours}`;
}

/** Make `wanted` the children of `parent`, in that order, without moving the focused one. */
export function arrange(parent, wanted) {
  const staying = new Set(wanted);
  for (const child of [...parent.children]) {
    if (!staying.has(child)) {
      child.remove();
    }
  }
  const fixed = Math.max(0, wanted.findIndex((child) => child.contains(document.activeElement)));
  if (wanted.length && !parent.contains(wanted[fixed])) {
    parent.append(wanted[fixed]);
  }
  for (let n = fixed - 1; n >= 0; n -= 1) {
    if (wanted[n].nextSibling !== wanted[n + 1]) {
      wanted[n + 1].before(wanted[n]);
    }
  }
  for (let n = fixed + 1; n < wanted.length; n += 1) {
    if (wanted[n].previousSibling !== wanted[n - 1]) {
      wanted[n - 1].after(wanted[n]);
    }
  }
}
