"""Parts of the OpenAPI document that FastAPI does not derive by itself."""

from collections.abc import Iterable
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute

from .problems import MEDIA_TYPE

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document (RFC 9457) with a stable `code`",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "code"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "code": {"type": "string"},
                    },
                }
            }
        },
    }
}
"""The response that every operation may give besides its own."""


def use_docstring_summaries(routes: Iterable[BaseRoute]) -> None:
    """Split the docstring of each route into its summary and its description."""
    for route in routes:
        if isinstance(route, APIRoute):
            first_line, _, rest = route.description.partition("\n")
            route.summary = first_line.rstrip(".")
            route.description = rest.strip()


def note_roles(routes: Iterable[BaseRoute]) -> None:
    """Name in each operation the roles of keys that may call it, as `x-roles`."""
    for route in routes:
        if isinstance(route, APIRoute):
            roles = _roles_of(route.dependant)
            if roles:
                route.openapi_extra = {**(route.openapi_extra or {}), "x-roles": list(roles)}


def _roles_of(dependant: Dependant) -> tuple[str, ...]:
    own: tuple[str, ...] = getattr(dependant.call, "roles", ())
    return own or next(filter(None, map(_roles_of, dependant.dependencies)), ())


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model with its `$defs` inlined.

    A route that reads its body by itself describes it by this schema: an operation has no `$defs`.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inline(definitions[value["$ref"].rpartition("/")[2]])
        return {name: inline(inner) for name, inner in value.items()}

    inlined: dict[str, Any] = inline(schema)
    return inlined
