"""Derive minimal bodies from the OpenAPI document, and invalid variants of them."""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

WRITING = ("post", "put", "patch", "delete")
LONG = 1_000_000
TWICE = " is there twice"
HOSTILE_IDS = [
    "a/b", "a+b", "a#b", "a\0b", "a b", "$where", "..", "\u0415MP-12345", "EMP-1234\u0665", "a\nb", "\ud800",
    "x" * LONG,
]  # fmt: skip
# No text of a person has these either.
HOSTILE_TEXTS = ["a\0b", "a\x1bb", "x" * LONG, "\ud800"]
_GOOD_TEXTS = [
    "EMP-12345", "lobby", "face:test-8", "face", "resync", "photo_001", "upsert", "aabb",
    "2026-01-15T10:00:00.000Z", "EV3-1736942400000-a1b2c3", "a" * 64,
]  # fmt: skip
_HUGE = 10**400


@dataclass(frozen=True)
class Route:
    """An operation that writes; `body` is the JSON schema with references inlined."""

    method: str
    path: str
    parameters: tuple[str, ...]
    body: Schema | None

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass(frozen=True)
class InvalidBody:
    """Hold a body with one mistake.

    `within_list` is set if only an item of a list is wrong.
    """

    what: str
    content: bytes
    within_list: bool


def writing_routes(document: Mapping[str, Any]) -> list[Route]:
    """Return every operation of an OpenAPI document that may change something."""
    routes = []
    for path, operations in document["paths"].items():
        for method in WRITING:
            if method in operations:
                operation = operations[method]
                named = tuple(p["name"] for p in operation.get("parameters", ()) if p["in"] == "path")
                content = operation.get("requestBody", {}).get("content", {})
                body = content.get("application/json", {}).get("schema")
                routes.append(Route(method, path, named, body and inline(body, document)))
    return routes


def inline(schema: Any, document: Mapping[str, Any]) -> Any:
    """Return `schema` without references."""
    if isinstance(schema, list):
        return [inline(entry, document) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inline(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    return {key: inline(value, document) for key, value in schema.items()}


def smallest_value(schema: Schema) -> Any:
    """Return a value of `schema` without optional fields."""
    schema = _without_null(schema)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            required = list(schema.get("required", ()))
            if "required" not in schema.get("if", {}):
                # The condition is on values of fields, which are absent here.
                required += schema.get("then", {}).get("required", ())
            required = required or list(schema.get("properties", ()))[: schema.get("minProperties", 0)]
            return {name: smallest_value(schema["properties"][name]) for name in required}
        case "array":
            return [smallest_value(schema["items"])] * max(1, schema.get("minItems", 1))
        case "integer" | "number":
            return max(1, schema.get("minimum", 1)) if schema.get("maximum", 1) >= 1 else schema["maximum"]
        case "boolean":
            return True
        case _:
            return next(text for text in _GOOD_TEXTS if fits(text, schema))


def fits(text: str, schema: Schema) -> bool:
    """Return whether a text matches; patterns that Python cannot read match all."""
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", LONG):
        return False
    try:
        return re.search(schema.get("pattern", ""), text) is not None
    except re.error:
        return text.isprintable()


def invalid_bodies(schema: Schema, valid_body: Any) -> Iterator[InvalidBody]:
    """Yield every body that differs from `valid_body` by one mistake."""
    text = json.dumps(valid_body)
    for name in valid_body:
        yield InvalidBody(f"{name}{TWICE}", f'{{"{name}": "a/b", {text[1:]}'.encode(), False)
    yield InvalidBody("cut short", text[:-1].encode(), False)
    yield InvalidBody("nested without end", b"[" * 100_000 + b"]" * 100_000, False)
    yield InvalidBody("not UTF-8", text.encode() + b"\xff", False)
    yield InvalidBody("a number without end", b"9" * 5000, False)
    for path, part in _fields(schema, ()):
        for what, value in _wrong_values(part):
            position = ".".join(map(str, path)) or "the body"
            content = json.dumps(_with_value(valid_body, schema, path, value)).encode()
            item = isinstance(value, list) or any(isinstance(step, int) for step in path)
            yield InvalidBody(f"{position} is {what}", content, item)


def _fields(schema: Schema, path: Path) -> Iterator[tuple[Path, Schema]]:
    schema = _without_null(schema)
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from _fields(part, (*path, name))
    if schema.get("type") == "array":
        yield from _fields(schema["items"], (*path, 0))


def _wrong_values(schema: Schema) -> Iterator[tuple[str, Any]]:
    kind = schema.get("type")
    yield "not a number", float("nan")
    yield "endless", float("-inf")
    if kind == "object" and schema.get("additionalProperties") is True:
        yield from _wrong_free_objects()
        return
    if kind == "object" and schema.get("additionalProperties") is False:
        valid = smallest_value(schema)
        for name in ("$where", "__proto__", "user_id\0", "\ud800", "n" * 10_000):
            yield f"with {name[:10]!r}", valid | {name: "1"}
    else:
        yield "an operator", {"$where": "sleep(1000)"}
    yield from _wrong_kinds(kind)
    if kind == "string":
        for value in HOSTILE_IDS if _is_narrow(schema) else HOSTILE_TEXTS:
            yield repr(value[:12]), value
    else:
        yield "a text", "$where"


def _wrong_kinds(kind: str | None) -> Iterator[tuple[str, Any]]:
    yield "a list in lists", json.loads("[" * 50 + "]" * 50)
    if kind != "boolean":
        yield "a truth", True
    if kind != "number":
        yield "huge", _HUGE
        yield "more than 64 bits", 10**30


def _wrong_free_objects() -> Iterator[tuple[str, Any]]:
    """Yield invalid objects for a field with free names and values."""
    yield "a text", "$where"
    yield "deep", {"a": json.loads('{"a":' * 50 + "1" + "}" * 50)}
    yield "with NUL in a key", {"a\0b": 1}
    yield "with a reference", {"$ref": "identities", "$id": 1}
    yield "with half a character", {"a": "\ud800"}


def _is_narrow(schema: Schema) -> bool:
    """Return whether pattern or enumeration exclude every hostile id."""
    if "enum" in schema or "const" in schema or "format" in schema:
        return True
    try:
        return not any(re.search(schema["pattern"], text) for text in HOSTILE_IDS)
    except (KeyError, re.error):
        return False


def _with_value(valid_body: Any, schema: Schema, path: Path, value: Any) -> Any:
    """Return `valid_body` with `value` at `path`; missing parents are created."""
    if not path:
        return value
    step, *remaining = path
    schema = _without_null(schema)
    part = schema["items"] if isinstance(step, int) else schema["properties"][step]
    changed = deepcopy(valid_body)
    if isinstance(step, int):
        changed[step] = _with_value(changed[step], part, tuple(remaining), value)
    else:
        changed[step] = _with_value(changed.get(step, smallest_value(part)), part, tuple(remaining), value)
    return changed


def _without_null(schema: Schema) -> Schema:
    """Return the schema of an optional field without null."""
    return next((entry for entry in schema.get("anyOf", ()) if entry.get("type") != "null"), schema)
