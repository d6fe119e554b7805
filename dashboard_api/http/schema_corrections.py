"""Correct what pydantic and FastAPI write as JSON Schema."""

from typing import Any

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def correct_schemas(value: Any) -> None:
    """Correct every schema within a document, in place.

    FastAPI writes bounds as floats, and 2**63 rounded up. Pydantic does not say that a dict with a pattern
    for its keys has no other keys.
    """
    if isinstance(value, list):
        for one in value:
            correct_schemas(one)
    elif isinstance(value, dict):
        for name in _BOUNDS:
            bound = value.get(name)
            if isinstance(bound, float) and bound.is_integer():
                value[name] = int(bound)
        if "patternProperties" in value:
            value.setdefault("additionalProperties", False)
        for one in value.values():
            correct_schemas(one)
