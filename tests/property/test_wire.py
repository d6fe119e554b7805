"""Any message of the wire with anything hostile in any place: refused, or harmless to all who keep it."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract.channels import decode
from broker_bridge.contract.errors import ContractError
from tests.contract.golden_messages import GOLDEN, Golden

Path = tuple[str | int, ...]

HOSTILE: list[Any] = [
    "a/b", "a+b", "a#b", "a\0b", "$where", "\u0415MP-12345", "\ud800", "x" * 100_000, "", "..", None, True,
    {"$where": "sleep(1000)"}, {"$ref": "a", "$id": 1}, {"a\0b": 1}, json.loads("[" * 60 + "]" * 60),
    json.loads('{"a":' * 60 + "1" + "}" * 60), -1, 2**63, 10**400, float("nan"), float("inf"), 1e308, [[]],
]  # fmt: skip
BAD_LEVELS = [
    "a/b",
    "a+b",
    "+",
    "#",
    "a\0b",
    "$SYS",
    "",
    "CAM-001",
    "\u0441am-001",
    "cam 1",
    "x" * 64,
    "\ud800",
]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in a document, itself included."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


def with_hostile(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = deepcopy(document)
    part = changed
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return changed


def is_refused_or_harmless(topic: str, payload: bytes) -> None:
    """Refused with a sentence that can be logged; or read, kept by MongoDB and written again as it was."""
    refusal = None
    try:
        read = decode(topic, payload)
    except ContractError as error:
        refusal = error
    if refusal:
        assert refusal.detail.isprintable()
        assert 0 < len(refusal.detail) <= 1000
        return
    assert read.channel.decode(read.message.to_json()) == read.message
    if read.channel.direction == "up":
        assert bson.decode(bson.encode({"kept": read.message.model_dump()}))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_a_hostile_value_in_any_place_is_refused_or_harmless(golden: Golden) -> None:
    """Operators, topic characters, look-alikes, half characters, deep, huge and endless ones."""
    for path in places(golden.document):
        for value in HOSTILE:
            payload = json.dumps(with_hostile(golden.document, path, value)).encode()
            is_refused_or_harmless(golden.topic, payload)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
@pytest.mark.parametrize("level", BAD_LEVELS, ids=lambda level: repr(level)[:12])
def test_an_id_that_is_none_is_nobodys_topic(golden: Golden, level: str) -> None:
    """Whatever a message says: its topic names who it is from."""
    parts = golden.topic.split("/")
    parts[3] = level
    with pytest.raises(ContractError):
        decode("/".join(parts), golden.payload)


@given(st.sampled_from(GOLDEN), st.data())
def test_any_bytes_in_any_place_are_refused_or_harmless(golden: Golden, data: st.DataObject) -> None:
    """Also what nobody thought of."""
    payload = golden.payload
    start = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(start, min(len(payload), start + 20)))
    is_refused_or_harmless(golden.topic, payload[:start] + data.draw(st.binary(max_size=20)) + payload[end:])
