// The documentation of the API; a key of this tab's session may try what its role may call.

import { getJson, key } from "/ui/lib/api.js";

const MAX_WAIT_MS = 15_000;

async function roleOfSession() {
  if (!key.get()) {
    return null;
  }
  return (await getJson("/api/v1/whoami").catch(() => ({ role: null }))).role;
}

const [role, spec] = await Promise.all([
  roleOfSession(),
  fetch("/openapi.json", { signal: AbortSignal.timeout(MAX_WAIT_MS) }).then((response) => response.json()),
]);

/** Offer no operation that the key may not call; without a session every one, since a key can be entered here. */
const offerAllowed = {
  statePlugins: {
    spec: {
      wrapSelectors: {
        allowTryItOutFor: () => (_state, path, method) => {
          const roles = spec.paths[path]?.[method]?.["x-roles"];
          return role === null || !roles || roles.includes(role);
        },
      },
    },
  },
};

// This Swagger UI only reads documents with the version OpenAPI 3.0. Ours is 3.1; the features that it uses are
// displayed well enough. Clients get the unchanged document from /openapi.json.
SwaggerUIBundle({
  spec: { ...spec, openapi: "3.0.3" },
  dom_id: "#swagger-ui",
  deepLinking: true,
  plugins: [offerAllowed],
});
