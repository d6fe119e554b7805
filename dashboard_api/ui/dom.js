// The only way that this page makes elements: text is text, whatever it contains.

export const byId = (id) => document.getElementById(id);

export function el(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) {
    made.className = className;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
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
  return new Date(time).toLocaleString();
}

export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
