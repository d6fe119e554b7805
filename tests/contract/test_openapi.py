"""The OpenAPI document describes every operation, body and problem.

What to do for a new route: a docstring (its first line is the summary), a tag of
`dashboard_api/http/openapi.py`, a return type that is a `View`, `responses=problems(...)` for unusual
statuses, and a description for each new property and parameter in `dashboard_api/http/descriptions.py` or at
the field.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings

DOCUMENT = create_app(MagicMock(), ApiSettings()).openapi()
OPERATIONS = {
    f"{method} {path}": operation
    for path, path_item in DOCUMENT["paths"].items()
    for method, operation in path_item.items()
}
GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = DOCUMENT["components"]["schemas"]
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
# JSON whose form is free: the names of each modality, and all data about one identity.
FREE_FORM = {"get /api/v1/identity/names", "get /api/v1/identities/{user_id}/export"}


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Return every object schema with properties in a schema, nested ones included."""
    if isinstance(schema, list):
        for part in schema:
            yield from objects(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema
        for part in schema.values():
            yield from objects(part)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described(name: str) -> None:
    """It has a summary, a description, a known tag, and described parameters."""
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"]
    assert {tag["name"] for tag in DOCUMENT["tags"]} >= set(operation["tags"]) != set()
    assert [one["name"] for one in operation.get("parameters", []) if not one.get("description")] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_answer_is_typed(name: str) -> None:
    """JSON has a named model, or a list of one; no property lacks a description."""
    operation = OPERATIONS[name]
    successes = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    assert successes
    for media_type, content in (item for one in successes for item in one.get("content", {}).items()):
        schema = content["schema"]
        if media_type == "application/json" and name not in FREE_FORM:
            assert "$ref" in schema or "$ref" in schema["items"]
    described = list(objects(operation.get("requestBody", {})))
    properties = [item for one in described for item in one["properties"].items()]
    assert [key for key, value in properties if not value.get("description")] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_declares_its_problems(name: str) -> None:
    """Those of the key, the role, the parameters and the body; all are RFC 9457."""
    operation, method = OPERATIONS[name], name.partition(" ")[0]
    expected = {"422", "500"}
    if operation["security"]:
        expected |= {"401", "503"}
    if "requestBody" in operation:
        expected |= {"400", "413", "415"}
    if "{" in name:
        expected.add("404")
    if method != "get":
        expected.add("409")
    failures = {status: answer for status, answer in operation["responses"].items() if status[0] in "45"}
    assert expected <= set(failures)
    if name != "get /readyz":
        assert all(answer["content"] == PROBLEM for answer in failures.values())
    assert ("403" in failures) == ("x-roles" in operation)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_property_is_described(name: str) -> None:
    """A new field needs a description: its own, or one in `http/descriptions.py`."""
    properties = SCHEMAS[name].get("properties", {})
    assert [key for key, value in properties.items() if not value.get("description")] == []


def test_only_the_health_routes_need_no_key() -> None:
    """The document says so for each operation."""
    assert {name for name, operation in OPERATIONS.items() if not operation["security"]} == {
        "get /healthz",
        "get /readyz",
    }


def schemas_in(value: Any) -> Iterator[dict[str, Any]]:
    """Return every object within the document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from schemas_in(part)


def test_bounds_are_those_of_json_schema() -> None:
    """Not `ge`, and no float: 2**63 would be another number."""
    for schema in schemas_in(DOCUMENT):
        assert not {"ge", "gt", "le", "lt"} & set(schema)
        bounds = [schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")]
        assert not any(isinstance(bound, float) and bound.is_integer() for bound in bounds)
        assert "patternProperties" not in schema or "additionalProperties" in schema


def test_patterns_are_read_by_every_reader() -> None:
    """A class by Unicode property is unknown to Python's `re`."""
    for schema in schemas_in(DOCUMENT):
        if isinstance(schema.get("pattern"), str):
            re.compile(schema["pattern"])


def test_no_operation_id_changes() -> None:
    """Generated clients call operations by their ids: one that was published stays."""
    published = (GOLDEN / "operation_ids.txt").read_text().split()
    assert len(published) > 60
    assert set(published) <= {operation["operationId"] for operation in OPERATIONS.values()}
