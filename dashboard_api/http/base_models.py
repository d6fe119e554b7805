"""Base models and field types that several request and response bodies share."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.wire import format_time

from .image_indicators import NoImage

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
# NaN is left to the contract's own check of vectors, which explains the mistake better.
Numbers = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION)]
DisplayName = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$"), NoImage]


class Body(BaseModel):
    """A request body; unknown fields are rejected, so that typing errors show."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class View(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True)
