"""Read JSON lines: one identity a line, as `export` writes them."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from broker_bridge.contract.errors import PAYLOAD_TOO_LARGE
from fleet.import_source import REQUEST_INVALID, ImportRefusal, SourceEntry, to_entry

from .lines import TOO_LONG, bounded_lines


def read_jsonl(file: BinaryIO, name: str, sites: list[str]) -> Iterator[SourceEntry]:
    """Yield an entry for each line that is not empty; reports use `name`."""
    with file:
        for number, line in enumerate(bounded_lines(file), start=1):
            where = f"{name}:{number}"
            if line is None:
                yield _refused(where, PAYLOAD_TOO_LARGE, TOO_LONG)
            elif line.strip():
                yield _parse_line(where, line, sites)


def _parse_line(where: str, line: bytes, sites: list[str]) -> SourceEntry:
    try:
        document = json.loads(line.decode(), parse_constant=_reject_constant, object_pairs_hook=_unique_names)
    except UnicodeDecodeError:
        return _refused(where, REQUEST_INVALID, "the line is not UTF-8")
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
