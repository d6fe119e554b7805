"""Base models and field types that several request and response bodies share."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from broker_bridge.common.plain_text import normalise_text
from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.ids import UserId as ExactUserId
from broker_bridge.contract.wire import format_time

from .image_indicators import NoImage

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
# NaN is left to the contract's own check of vectors, which explains the mistake better.
Numbers = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION)]


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


class Body(BaseModel):
    """A request body; unknown fields are rejected, so that typing errors show."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class View(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True)
