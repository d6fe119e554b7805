"""Base models and field types that several request and response bodies share."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from broker_bridge.common.plain_text import normalise_text
from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import UserId as ExactUserId
from broker_bridge.contract.wire import format_time, read_time

from .descriptions import describe_body
from .image_indicators import NoImage

_NUMBER = re.compile(r"\s*[+-]?[0-9._]+\s*", re.ASCII)

Time = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2026-01-15T10:00:00.000Z"]},
        mode="serialization",
    ),
]
"""A time in an answer: UTC with milliseconds."""
# NaN is left to the contract's own check of vectors, which explains the mistake better.
Numbers = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION)]


def _read_written_time(value: object) -> object:
    at = read_time(value)
    if isinstance(at, (int, float)) or (isinstance(at, str) and _NUMBER.fullmatch(at)):
        raise ValueError("a time is text like 2026-01-15T10:00:00Z, not a number")
    return at


WrittenTime = Annotated[AwareDatetime, BeforeValidator(_read_written_time)]
"""A time in a request (RFC 3339); pydantic alone would take a number for seconds since 1970."""


def _normalise(value: object) -> object:
    return normalise_text(value) if isinstance(value, str) else value


Normalised = BeforeValidator(_normalise)
"""Texts that people type are compared and stored in NFC, without blanks at their ends."""
DisplayName = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$"), Normalised, NoImage]
UserId = Annotated[
    ExactUserId,
    Normalised,
    WithJsonSchema({"type": "string", "pattern": r"^\s*[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}\s*$"}),
]
"""The id of an identity; blanks around it are dropped."""


def _read_whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_read_whole)
"""JSON has one kind of number: 5.0 is the integer 5."""


def _read_whole_counts(value: object) -> object:
    if isinstance(value, dict):
        return {name: _read_whole_counts(one) for name, one in value.items()}
    return _read_whole(value)


WholeCounts = BeforeValidator(_read_whole_counts)
"""The same for the numbers of a message of the wire, where 5.0 is no integer."""


class DocumentedAs:
    """Field annotation: the schema of `model`, without validation of the value.

    For documents of the registry that the contract has checked when they arrived.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        schema: Any = handler(source)
        # A `__get_pydantic_json_schema__` would write the whole schema in the place of a reference to it.
        metadata: dict[str, Any] = {"pydantic_js_annotation_functions": [self._describe]}
        schema["metadata"] = {**schema.get("metadata", {}), **metadata}
        return schema

    def _describe(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described: Any = self._model.__pydantic_core_schema__
        definitions: list[Any] = []
        if described["type"] == "definitions":
            definitions, described = described["definitions"], described["schema"]
        if described["type"] != "definition-ref":
            definitions = [*definitions, described]
            described = core_schema.definition_reference_schema(described["ref"])
        return handler(core_schema.definitions_schema(described, definitions))


_OTHER_ITEM = {"description": "Anything else is rejected by itself, with its reason in the answer."}


def accept_any_item(schema: dict[str, Any]) -> None:
    """Describe a list whose items are decided one by one."""
    schema["items"] = {"anyOf": [schema["items"], _OTHER_ITEM]}


def accept_any_object(schema: dict[str, Any]) -> None:
    """Describe a list of objects, which are decided one by one."""
    schema["items"] = {"anyOf": [schema["items"], {"type": "object"} | _OTHER_ITEM]}


class Body(BaseModel):
    """A request body; unknown fields are rejected, so that typing errors show."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, json_schema_extra=describe_body)


class View(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True, json_schema_extra=describe_body)
