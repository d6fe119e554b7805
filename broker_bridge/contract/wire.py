"""Define the wire form of single values: times, vectors, open documents, images."""

import base64
import binascii
import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from .descriptions import describe_properties
from .embeddings import MAX_DIMENSION, check_float32, from_base64, to_base64
from .errors import IMAGE_INVALID, ContractError

MAX_UP_BYTES = 256 * 1024
"""The largest upward message; the device rejects a larger one (`payload-too-large`)."""
MAX_PAGE_BYTES = 256 * 1024
"""The default size at which a sync page or delta is cut."""
MAX_IDENTITY_BYTES = 512 * 1024
"""The largest identity, which is never split: some 180 templates of 512 dimensions."""
MAX_DOWN_BYTES = 1000 * 1024
"""The largest downward payload; a broker closes the connection beyond its limit, 1 MiB."""

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,32}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_INT64 = 2**63
_INFINITE = float("inf")
_NO_OFFSET = timedelta()
_MAX_KEY = 128
_MAX_DEPTH = 8


class WireModel(BaseModel):
    """A frozen model that ignores unknown fields.

    It rejects missing fields, NaN and values of another type.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        allow_inf_nan=False,
        val_json_bytes="base64",
        json_schema_extra=describe_properties,
    )

    def to_json(self) -> bytes:
        """Return the UTF-8 payload, without absent optional fields."""
        return self.model_dump_json(exclude_none=True).encode()


class UpMessage(WireModel):
    """A message from a device.

    The topic identifies the device; a `device_id` in the payload must equal it.
    """

    device_id: str | None = Field(default=None, max_length=63)


def _read_own_form(text: str) -> datetime | None:
    """Return the time of text as `format_time` writes it, None for any other.

    Nearly every time on the wire has this form, and the general way takes five times as long.
    """
    if len(text) != 24 or text[4:20:3] != "--T::." or text[11:13] > "23" or text[23] != "Z":
        return None
    try:
        return datetime.fromisoformat(text[:23] + "+00:00")
    except ValueError:
        return None


def read_time(value: object) -> object:
    """Return the time of RFC 3339 text as a datetime, anything else unchanged.

    RFC 3339 allows `t` and `z` in lower case, any number of fraction digits, and a leap second: `:60` is the
    first second of the next minute, as POSIX counts. Raises ValueError for a day or hour
    that does not exist.
    """
    if not isinstance(value, str):
        return value
    if own := _read_own_form(value):
        return own
    found = _RFC3339.fullmatch(value)
    if found is None:
        return value
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    if second > 60 or int(minutes or 0) > 59 or int(hours or 0) > 23:
        raise ValueError(f"a time has seconds up to 60 and an offset up to 23:59: {found[0]}")
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    zone = timezone(-offset if sign == "-" else offset)
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    at = datetime(year, month, day, hour, minute, min(second, 59), micros, zone)
    try:
        return at + timedelta(seconds=second - min(second, 59))
    except OverflowError as error:
        raise ValueError("the year of a time lies within 1..9999 in UTC") from error


def _check_time(value: object) -> object:
    at = read_time(value)
    if isinstance(at, datetime):
        return at
    raise ValueError("a time is RFC 3339 with an offset, for example 2026-01-15T10:00:00.000Z")


def to_milliseconds(at: datetime) -> datetime:
    """Return `at` without its microseconds, as the wire and MongoDB keep times."""
    if at.microsecond % 1000 == 0:
        return at
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _to_utc_ms(value: datetime) -> datetime:
    if value.tzinfo is timezone.utc:
        return to_milliseconds(value)
    if value.tzinfo is None:
        raise ValueError("a time needs its offset from UTC, for example a closing Z")
    try:
        utc = value.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError("the year of a time lies within 1..9999 in UTC") from error
    return to_milliseconds(utc)


def format_time(value: datetime) -> str:
    """Return RFC 3339 UTC with milliseconds and `Z`, as on the wire and in REST."""
    if value.utcoffset() != _NO_OFFSET:
        value = value.astimezone(timezone.utc)
    # Twice as fast as `isoformat`; a list of a thousand persons has eight thousand times.
    parts = (value.year, value.month, value.day, value.hour, value.minute, value.second)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (*parts, value.microsecond // 1000)  # noqa: UP031


WireTime = Annotated[
    datetime,
    Field(strict=False),
    BeforeValidator(_check_time),
    AfterValidator(_to_utc_ms),
    PlainSerializer(format_time, return_type=str, when_used="json"),
]


class _VectorSchema:
    """The schema of a vector, which pydantic's own base64 decodes in JSON.

    That needs a quarter of the time of Python's. The URL-safe alphabet and a missing padding are taken, too.
    The error never quotes the text.
    """

    @staticmethod
    def __get_pydantic_core_schema__(_source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        own_base64 = core_schema.no_info_after_validator_function(check_float32, core_schema.bytes_schema())
        json = core_schema.custom_error_schema(
            own_base64,
            "vector_invalid",
            custom_error_message=f"A vector is base64 of 1 to {MAX_DIMENSION} little-endian float32",
        )
        python = core_schema.no_info_before_validator_function(_read_vector, core_schema.bytes_schema())
        return core_schema.json_or_python_schema(json, python)


def _read_vector(value: object) -> object:
    return from_base64(value) if isinstance(value, str) else value


WireVector = Annotated[
    bytes,
    _VectorSchema(),
    PlainSerializer(to_base64, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "description": "little-endian float32"}),
]


def _check_open_value(value: Any, depth: int) -> None:
    """Raise ValueError for a value that MongoDB or SQLite cannot store.

    Nearly all values are plain and stand at depth 1: those are checked in the loop over their object, since
    a call for each would take three times as long.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"an open document nests at most {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, child in value.items():
            # MongoDB's drivers decode an object with "$ref" as a reference.
            if not key or len(key) > _MAX_KEY or "\0" in key or key == "$ref":
                raise ValueError(f"a key has 1 to {_MAX_KEY} characters and no NUL, and is not $ref")
            kind = type(child)
            plain = kind is str or (
                depth < _MAX_DEPTH
                and (
                    kind is bool
                    or (kind is float and -_INFINITE < child < _INFINITE)
                    or (kind is int and -_INT64 <= child < _INT64)
                )
            )
            if not plain:
                _check_open_value(child, depth + 1)
    elif isinstance(value, list):
        for child in value:
            _check_open_value(child, depth + 1)
    elif isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise ValueError("an integer fits into 64 bits")
    elif isinstance(value, float) and not abs(value) < _INFINITE:
        raise ValueError("a number is finite")


def _check_open_document(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _check_open_value(value, 0)
    return value


OpenDocument = Annotated[dict[str, JsonValue], AfterValidator(_check_open_document)]
"""A JSON object with free keys that BSON and SQLite can store.

Without NaN, NUL in keys and integers past 64 bits.
"""


Name = Annotated[str, Field(pattern=r"^[^\x00$][^\x00]*$", max_length=_MAX_KEY)]
"""A key that a device chooses, such as a sensor's: no NUL and no leading $."""


ShortText = Annotated[str, Field(max_length=128)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def decode_image(text: str) -> bytes:
    """Return the JPEG bytes of an event's `image`.

    Raises ContractError(`image-invalid`).
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContractError(IMAGE_INVALID, "an event image is a base64 JPEG") from error
    if not data.startswith(b"\xff\xd8"):
        raise ContractError(IMAGE_INVALID, "an event image is a JPEG, which begins with FF D8")
    return data
