"""Read JSON lines: one identity a line, as `export` writes them."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from fleet.import_source import REQUEST_INVALID, ImportRefusal, SourceEntry, to_entry

from .lines import read_lines


def read_jsonl(file: BinaryIO, name: str, sites: list[str]) -> Iterator[SourceEntry]:
    """Yield an entry for each line that is not empty; reports use `name`."""
    with file:
        for line in read_lines(file):
            where = f"{name}:{line.number}"
            if line.problem:
                yield _refused(where, line.code, line.problem)
            elif line.text.strip():
                yield _parse_line(where, line.text, sites)


def _parse_line(where: str, line: str, sites: list[str]) -> SourceEntry:
    try:
        document = json.loads(line, parse_constant=_reject_constant, object_pairs_hook=_unique_names)
    except RecursionError:
        return _refused(where, REQUEST_INVALID, "the line is nested too deeply")
    except ValueError as error:
        detail = (
            "it names a field twice" if isinstance(error, _DuplicateNameError) else "the line is not JSON"
        )
        return _refused(where, REQUEST_INVALID, detail)
    if not isinstance(document, dict):
        return _refused(where, REQUEST_INVALID, "the line is not a JSON object with a user_id")
    return to_entry(where, document, sites)


class _DuplicateNameError(ValueError):
    """A JSON object with one name twice, so that its value is ambiguous."""


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise _DuplicateNameError
    return document


def _reject_constant(_: str) -> Any:
    raise ValueError("NaN and infinity are no JSON")


def _refused(where: str, code: str, detail: str) -> SourceEntry:
    return SourceEntry(refusals=(ImportRefusal(where, None, code, detail),))
