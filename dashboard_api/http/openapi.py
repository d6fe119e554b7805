"""The OpenAPI document: what FastAPI derives from the routes, completed.

A new route gets its summary and description from its docstring (first line, then the rest), and the problems
that any request of its kind can have by itself (`_usual`). It declares the others: `responses=problems(410)`
in its decorator. Descriptions of properties and
parameters stand in `descriptions.py`, those of tags here. `tests/contract/test_openapi.py` fails for what is
missing.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from broker_bridge.contract.asyncapi import CONTACT

from .base_models import View
from .descriptions import PARAMETERS
from .problems import MEDIA_TYPE
from .schema_corrections import correct_schemas

Document = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_DESCRIPTION = (
    "Enrolled identities, cameras, recognition events and detected persons of a fleet. Every request needs "
    "an API key as bearer token. Lists are paged by cursor. Every failure is a problem document (RFC 9457) "
    "with a stable `code`. The messages of cameras are described by AsyncAPI (docs/asyncapi.json)."
)
_STREAM = (
    "Server-sent events: blocks with `id`, `event: event` and `data`, which is an event as JSON, like an "
    "item of the list."
)
_TAGS = {
    "people": "Enrolled identities: create, change, delete, restore, merge, import and export.",
    "identity (seed 000)": "Enrolled identities by name and modality, as seed 000 has them.",
    "external sources (seed 001)": "Enrolled identities by the keys of other systems.",
    "training": "Jobs that turn photos of a catalog into vectors, for embed workers.",
    "privacy": "Erasures with their receipts, and the export of all data about one identity.",
    "events": "Recognition events, as a list and live.",
    "detected persons": "Persons as cameras see them, enrolled or not, by one number on all cameras.",
    "devices": "Cameras, sites and commands.",
    "spaces": "Embedding spaces: what their vectors are made with, and the limits of decisions in them.",
    "sync": "The versions that devices have applied.",
    "edge": "Devices that poll over HTTP instead of MQTT.",
    "keys": "API keys: list, create, revoke.",
    "audit": "Changes with their author and time.",
    "health": "Liveness and readiness, without an API key.",
}
_REASONS = {
    400: "The body cannot be read",
    401: "The API key is missing, unknown, revoked or expired",
    403: "The role of the API key does not suffice",
    404: "It does not exist",
    405: "The path has no such method",
    409: "The present state does not allow it",
    410: "It cannot be resumed there",
    413: "The body is too large",
    415: "The body has another media type",
    422: "The request is invalid, or cannot be carried out as it is",
    500: "A fault of the API",
    501: "This API has it switched off",
    503: "The registry is unavailable or busy: send the request again",
}


class InvalidField(View):
    """An invalid field of the request; values are never quoted."""

    field: str
    message: str


class ProblemDocument(View):
    """Why a request failed (RFC 9457); programs read `code`, people `detail`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    fields: list[InvalidField] | None = None


_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + ProblemDocument.__name__}}}


def problems(*statuses: int) -> dict[int | str, Document]:
    """Return the `responses` of a route that answers problems of these statuses."""
    return {status: {"description": _REASONS[status], "content": _PROBLEM} for status in statuses}


def install_openapi(app: FastAPI) -> None:
    """Make `app` answer the completed document, which is built at its first request."""

    def openapi() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI) -> Document:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="The registry of a fleet of face-recognition cameras.",
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": about} for name, about in _TAGS.items()],
        servers=[{"url": "/", "description": "The server that this document comes from."}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    document["info"]["contact"] = CONTACT
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _, problem_schemas = models_json_schema(
        [(ProblemDocument, "serialization")], ref_template=_SCHEMAS + "{model}"
    )
    schemas.update(problem_schemas["$defs"])
    correct_schemas(document)
    for path, path_item in document["paths"].items():
        for method, operation in path_item.items():
            _complete(path, method, operation)
    return document


def _complete(path: str, method: str, operation: Document) -> None:
    """Split the docstring, state the security, and add the problems of such a request."""
    first_line, _, rest = operation.get("description", "").partition("\n")
    operation["summary"] = first_line.rstrip(".")
    operation["description"] = rest.strip() or first_line
    operation.setdefault("security", [])
    usual = {str(status): problem for status, problem in problems(*_usual(path, method, operation)).items()}
    operation["responses"] = dict(sorted({**usual, **operation["responses"], "422": usual["422"]}.items()))
    for status, answer in operation["responses"].items():
        if status[0] in "45":
            answer.setdefault("content", _PROBLEM)
    for parameter in operation.get("parameters", []):
        if not parameter.get("description"):
            parameter["description"] = PARAMETERS.get(parameter["name"], "")
    for content in operation["responses"].get("200", {}).get("content", {}).values():
        # OpenAPI 3.1 has no `itemSchema`, which FastAPI writes for server-sent events.
        if content.pop("itemSchema", None):
            content["schema"] = {"type": "string", "description": _STREAM}


def _usual(path: str, method: str, operation: Document) -> set[int]:
    """Return the statuses of the problems that such a request can have."""
    statuses = {422, 500}
    if operation["security"]:
        statuses |= {401, 503}
    if "x-roles" in operation:
        statuses.add(403)
    if "requestBody" in operation:
        statuses |= {400, 413, 415}
    if "{" in path or method != "get":
        statuses.add(404)
    if method != "get":
        statuses.add(409)
    return statuses


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
