"use strict";

// This Swagger UI only reads documents that call themselves OpenAPI 3.0. Ours is 3.1, and what it uses of that
// is shown well enough; clients get it unchanged from /openapi.json.
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((spec) => SwaggerUIBundle({ spec: { ...spec, openapi: "3.0.3" }, dom_id: "#swagger-ui", deepLinking: true }));
