"""Call the API for a command, and name what it answers."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from broker_bridge.contract.spaces import LimitsSource
from fleet.api_client import ApiClient
from fleet.errors import ApiRefusedError, CannotRunError

T = TypeVar("T")


def call(api: ApiClient, request: Callable[[], T]) -> T:
    """Return what a request returns.

    Raises CannotRunError with the sentence of a refusal.
    """
    try:
        return request()
    except ApiRefusedError as error:
        raise CannotRunError(f"the API at {api.url} refuses ({error.status}): {error.detail}") from error


def describe_source(source: LimitsSource | None) -> str:
    """Return where limits come from, in words."""
    if source is None:
        return "unknown"
    pairs = "" if source.pairs is None else f" on {source.pairs:,} pairs"
    return f"{source.kind}{pairs}{_day(source.at)}"


def _day(at: datetime | None) -> str:
    return "" if at is None else f", {at:%Y-%m-%d}"
