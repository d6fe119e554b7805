// What the API key of this session may do: the page offers nothing else.

export const may = { change: false, administer: false };

/** Set what `role`, as `/api/v1/whoami` names it, may do; null is nothing. */
export function setRole(role) {
  may.administer = role === "admin";
  may.change = may.administer || role === "operator";
}
