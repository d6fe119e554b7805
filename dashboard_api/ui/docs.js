"use strict";

// This Swagger UI only reads documents with the version OpenAPI 3.0. Ours is 3.1; the features that it uses are
// displayed well enough. Clients get the unchanged document from /openapi.json.
fetch("/openapi.json")
  .then((response) => response.json())
  .then((spec) => SwaggerUIBundle({ spec: { ...spec, openapi: "3.0.3" }, dom_id: "#swagger-ui", deepLinking: true }));
