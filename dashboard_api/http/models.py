"""What the API takes and shows: one model per body and per answer."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from broker_bridge.contract.embeddings import MAX_DIMENSION
from broker_bridge.contract.wire import format_time

from .picture_guard import NoPicture

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
# Vectors are read without a check for NaN here: the contract's own check says it in better words.
Numbers = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION)]
DisplayName = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$"), NoPicture]
SourceNode = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
MAX_ARGS_BYTES = 16 * 1024
MAX_TEMPLATES = 64
"""Templates of one person: with more, the person would not fit into one message on the wire."""


class Body(BaseModel):
    """A request body: an unknown field is refused, so that a typing error is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class View(BaseModel):
    model_config = ConfigDict(frozen=True)
