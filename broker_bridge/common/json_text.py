"""Parse JSON strictly: each key once, and only numbers that JSON has."""

import json
from collections.abc import Iterator
from typing import Any


class JsonTextError(ValueError):
    """A text that cannot be settings; `is_syntax` if it is not JSON at all."""

    def __init__(self, sentence: str, *, is_syntax: bool = False) -> None:
        super().__init__(sentence)
        self.is_syntax = is_syntax


class _Object(dict[str, Any]):
    """An object that remembers the keys that it has twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.twice = sorted({key for key in keys if keys.count(key) > 1})


def parse_json(text: str) -> Any:
    """Return the value of `text`.

    Raises JsonTextError, chained to json.JSONDecodeError if the text is not JSON.
    """
    try:
        value = json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonTextError(f"is not JSON ({error.msg})", is_syntax=True) from error
    except RecursionError as error:
        raise JsonTextError("has too many levels") from error
    except JsonTextError:
        raise
    except ValueError as error:
        raise JsonTextError("has a number with too many digits") from error
    for place, twice in _duplicates(value, ""):
        raise JsonTextError(f"has {place}{twice} twice; remove one of them")
    return value


def _refuse_constant(name: str) -> Any:
    raise JsonTextError(f"has {name}, which is no number of JSON")


def _duplicates(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, _Object):
        yield from ((place, key) for key in value.twice)
        for key, inner in value.items():
            yield from _duplicates(inner, f"{place}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from _duplicates(inner, place)
