"""Parse the items of sources.

An invalid item stops no other; an image indicator rejects the whole request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from dashboard_api.http.base_models import Body
from dashboard_api.http.image_indicators import ImageIndicator, find_image_indicator, is_image
from dashboard_api.http.problems import PICTURE_REFUSED, Problem, from_validation_errors

from .views import (
    MAX_ITEMS,
    ExternalFaces,
    ExternalId,
    IngestBody,
    IngestLine,
    ItemError,
    SyncBody,
    SyncItem,
)

M = TypeVar("M", bound=Body)

LINE_MAX_BYTES = 1024 * 1024
REQUEST_INVALID = "request-invalid"
_EXTERNAL_ID: TypeAdapter[str] = TypeAdapter(ExternalId)


@dataclass(frozen=True)
class ItemPosition:
    """The position of an item: `index` in a JSON list, or `line` (from 1) of NDJSON."""

    index: int | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"body.results.{self.index}" if self.line is None else f"line {self.line}"


@dataclass(frozen=True)
class ParsedItem(Generic[M]):
    """A valid item with its position and what surrounds it."""

    position: ItemPosition
    source_system: str
    space: str | None
    item: M


Parsed = ParsedItem[M] | ItemError


def parse_sync(raw: bytes) -> list[Parsed[SyncItem]]:
    """Return the items of a sync body; raise Problem for an invalid body or an image."""
    try:
        body = SyncBody.model_validate_json(raw)
    except ValidationError as error:
        return _parse_each(raw, error, SyncBody, "identities", SyncItem)
    return [
        ParsedItem(ItemPosition(index=index), body.source_system, None, item)
        for index, item in enumerate(body.identities)
    ]


def parse_ingest(raw: bytes) -> list[Parsed[ExternalFaces]]:
    """Return the items of an ingest body; raise Problem as `parse_sync`."""
    try:
        body = IngestBody.model_validate_json(raw)
    except ValidationError as error:
        return _parse_each(raw, error, IngestBody, "results", ExternalFaces)
    return [
        ParsedItem(ItemPosition(index=index), body.source_system, body.space, item)
        for index, item in enumerate(body.results)
    ]


def parse_line(number: int, raw: bytes | None) -> Parsed[ExternalFaces]:
    """Return the item of an NDJSON line; None is a line that was too long.

    Raises Problem `picture-refused`.
    """
    position = ItemPosition(line=number)
    if raw is None:
        return rejected_item(position, "payload-too-large", f"a line may have at most {LINE_MAX_BYTES} bytes")
    try:
        line = IngestLine.model_validate_json(raw)
    except ValidationError as error:
        try:
            document = from_json(raw)
        except ValueError:
            if is_image(raw):
                raise ImageIndicator(f"line {number}", "image").problem() from error
            return rejected_item(position, REQUEST_INVALID, _sentence(error))
        _reject_images(document, f"line {number}", error)
        return rejected_item(position, REQUEST_INVALID, _sentence(error), document)
    return ParsedItem(position, line.source_system, line.space, line)


def _parse_each(
    raw: bytes, error: ValidationError, body_type: type[Body], items_field: str, item_type: type[M]
) -> list[Parsed[M]]:
    """Return the items of a body that is invalid somewhere."""
    try:
        document = from_json(raw)
    except ValueError:
        if is_image(raw):
            raise ImageIndicator("body", "image").problem() from error
        raise _to_body_problem(error) from error
    _reject_images(document, "body", error)
    items = document.get(items_field) if isinstance(document, dict) else None
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise _to_body_problem(error)
    try:
        # The body without its items: mistakes of the items must not reject the whole.
        body: Any = body_type.model_validate({**document, items_field: []})
    except ValidationError as body_error:
        raise _to_body_problem(body_error) from body_error
    parsed: list[Parsed[M]] = []
    for index, item in enumerate(items):
        position = ItemPosition(index=index)
        try:
            valid = item_type.model_validate(item)
        except ValidationError as item_error:
            parsed.append(rejected_item(position, REQUEST_INVALID, _sentence(item_error), item))
        else:
            parsed.append(ParsedItem(position, body.source_system, getattr(body, "space", None), valid))
    return parsed


def rejected_item(position: ItemPosition, code: str, detail: str, item: Any = None) -> ItemError:
    """Return the error of a rejected item, with its external id if that is valid."""
    external_id = item.get("external_id") if isinstance(item, dict) else None
    try:
        external_id = _EXTERNAL_ID.validate_python(external_id, strict=True)
    except ValidationError:
        external_id = None
    return ItemError(
        index=position.index, line=position.line, external_id=external_id, code=code, detail=detail
    )


def _reject_images(document: Any, root: str, error: ValidationError) -> None:
    indicator = find_image_indicator(document)
    if indicator:
        raise ImageIndicator(f"{root}.{indicator.at}", indicator.kind).problem()
    # Of a name that stands twice in an object, `document` has one value only; the model has seen both.
    if any(detail["type"] == PICTURE_REFUSED for detail in _details(error)):
        raise _to_body_problem(error)


def _details(error: ValidationError) -> Sequence[ErrorDetails]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _to_body_problem(error: ValidationError) -> Problem:
    return from_validation_errors([{**detail, "loc": ("body", *detail["loc"])} for detail in _details(error)])


def _sentence(error: ValidationError) -> str:
    """Return what is wrong with an item, without its values."""
    details = [{**detail, "loc": detail["loc"] or ("item",)} for detail in _details(error)]
    return from_validation_errors(details).detail
