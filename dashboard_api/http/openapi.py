"""Bodies that a route reads by itself, as the documentation shows them."""

from typing import Any

from pydantic import BaseModel


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model with what it refers to in its place: an operation has no `$defs`."""
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

    inline_schema: dict[str, Any] = inline(schema)
    return inline_schema
