"""Conditions between the fields of a body, in JSON Schema.

`if` and `then` leave the properties of the model where generators of clients find them.
"""

from collections.abc import Callable
from typing import Any

from .descriptions import describe_body

Schema = dict[str, Any]
_NULL = {"type": "null"}


def described_with(condition: Schema) -> Callable[[Schema, type], None]:
    """Return a `json_schema_extra` that describes a body and adds a condition."""

    def describe(schema: Schema, model: type) -> None:
        describe_body(schema, model)
        schema.update(condition)

    return describe


def one_of_two(first: str, second: str) -> Schema:
    """Return the condition that exactly one of two fields is there and not null."""
    return {
        "if": {"properties": {second: _NULL}},
        "then": _given(first),
        "else": {"properties": {first: _NULL}},
    }


def given_without(field: str, other: str) -> Schema:
    """Return the condition that `field` is there where `other` is absent or null."""
    return {"if": {"properties": {other: _NULL}}, "then": {"required": [field]}}


def given_only_for(field: str, name: str, value: str) -> Schema:
    """Return the condition that `field` has a value only if `name` is `value`."""
    return {
        "if": {"properties": {name: {"const": value}}, "required": [name]},
        "then": _given(field),
        "else": {"properties": {field: _NULL}},
    }


def _given(field: str) -> Schema:
    return {"required": [field], "properties": {field: {"not": _NULL}}}
