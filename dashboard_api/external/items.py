"""What sources hand in, item by item: one that cannot be read stops no other, a picture stops them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from dashboard_api.http.base_models import Body
from dashboard_api.http.image_indicators import ImageIndicator, find_image_indicator, is_image
from dashboard_api.http.problems import PICTURE_REFUSED, Problem, from_validation_errors

from .views import MOST_ITEMS, ExternalId, IngestBody, IngestLine, ItemError, PersonFaces, SyncBody, SyncItem

M = TypeVar("M", bound=Body)

LINE_MAX_BYTES = 1024 * 1024
REQUEST_INVALID = "request-invalid"
_EXTERNAL_ID: TypeAdapter[str] = TypeAdapter(ExternalId)


@dataclass(frozen=True)
class ItemPosition:
    """Where an item stands: at `index` of a JSON list, or on `line` (from 1) of NDJSON."""

    index: int | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"body.results.{self.index}" if self.line is None else f"line {self.line}"


@dataclass(frozen=True)
class ParsedItem(Generic[M]):
    """An item that could be read."""

    place: ItemPosition
    source_system: str
    space: str | None
    item: M


Read = ParsedItem[M] | ItemError


def read_sync(raw: bytes) -> list[Read[SyncItem]]:
    """The items of a sync body; raises Problem for a body that is none, and for one with a picture in it."""
    try:
        body = SyncBody.model_validate_json(raw)
    except ValidationError as error:
        return _one_by_one(raw, error, SyncBody, "identities", SyncItem)
    return [
        ParsedItem(ItemPosition(index=index), body.source_system, None, item)
        for index, item in enumerate(body.identities)
    ]


def read_ingest(raw: bytes) -> list[Read[PersonFaces]]:
    """As read_sync, for vectors."""
    try:
        body = IngestBody.model_validate_json(raw)
    except ValidationError as error:
        return _one_by_one(raw, error, IngestBody, "results", PersonFaces)
    return [
        ParsedItem(ItemPosition(index=index), body.source_system, body.space, item)
        for index, item in enumerate(body.results)
    ]


def read_line(number: int, raw: bytes | None) -> Read[PersonFaces]:
    """A line of NDJSON (None: one that was too long); raises Problem `picture-refused`."""
    place = ItemPosition(line=number)
    if raw is None:
        return refused(place, "payload-too-large", f"a line may have at most {LINE_MAX_BYTES} bytes")
    try:
        line = IngestLine.model_validate_json(raw)
    except ValidationError as error:
        try:
            document = from_json(raw)
        except ValueError:
            if is_image(raw):
                raise ImageIndicator(f"line {number}", "image").problem() from error
            return refused(place, REQUEST_INVALID, _sentence(error))
        _refuse_pictures(document, f"line {number}", error)
        return refused(place, REQUEST_INVALID, _sentence(error), document)
    return ParsedItem(place, line.source_system, line.space, line)


def _one_by_one(
    raw: bytes, error: ValidationError, body_type: type[Body], items_field: str, item_type: type[M]
) -> list[Read[M]]:
    """The items of a body that has a mistake somewhere."""
    try:
        document = from_json(raw)
    except ValueError:
        if is_image(raw):
            raise ImageIndicator("body", "image").problem() from error
        raise _of_body(error) from error
    _refuse_pictures(document, "body", error)
    items = document.get(items_field) if isinstance(document, dict) else None
    if not isinstance(items, list) or len(items) > MOST_ITEMS:
        raise _of_body(error)
    try:
        # Without the items only what surrounds them is looked at.
        around: Any = body_type.model_validate({**document, items_field: []})
    except ValidationError as of_body:
        raise _of_body(of_body) from of_body
    read: list[Read[M]] = []
    for index, item in enumerate(items):
        place = ItemPosition(index=index)
        try:
            found = item_type.model_validate(item)
        except ValidationError as of_item:
            read.append(refused(place, REQUEST_INVALID, _sentence(of_item), item))
        else:
            read.append(ParsedItem(place, around.source_system, getattr(around, "space", None), found))
    return read


def refused(place: ItemPosition, code: str, detail: str, item: Any = None) -> ItemError:
    """Why an item is refused; its key is told only if it is one."""
    external_id = item.get("external_id") if isinstance(item, dict) else None
    try:
        external_id = _EXTERNAL_ID.validate_python(external_id, strict=True)
    except ValidationError:
        external_id = None
    return ItemError(index=place.index, line=place.line, external_id=external_id, code=code, detail=detail)


def _refuse_pictures(document: Any, root: str, error: ValidationError) -> None:
    picture = find_image_indicator(document)
    if picture:
        raise ImageIndicator(f"{root}.{picture.at}", picture.kind).problem()
    # A name that stands twice in one object is seen once by us, and twice by the model.
    if any(one["type"] == PICTURE_REFUSED for one in _details(error)):
        raise _of_body(error)


def _details(error: ValidationError) -> Sequence[ErrorDetails]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _of_body(error: ValidationError) -> Problem:
    return from_validation_errors([{**one, "loc": ("body", *one["loc"])} for one in _details(error)])


def _sentence(error: ValidationError) -> str:
    """What is wrong with an item, without what it holds."""
    details = [{**one, "loc": one["loc"] or ("item",)} for one in _details(error)]
    return from_validation_errors(details).detail
