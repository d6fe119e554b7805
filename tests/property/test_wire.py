"""Check that hostile values anywhere in a message are rejected or harmless."""

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


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield every path in a document, the empty one included."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from paths(part, (*path, name))


def with_hostile(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = deepcopy(document)
    part = changed
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return changed


def check_rejected_or_harmless(topic: str, payload: bytes) -> None:
    """Assert that a payload is rejected printably, or stored and encoded unchanged."""
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
def test_a_hostile_value_anywhere_is_rejected_or_harmless(golden: Golden) -> None:
    """Operators, topic characters, look-alikes, surrogates and huge values do no harm."""
    for path in paths(golden.document):
        for value in HOSTILE:
            payload = json.dumps(with_hostile(golden.document, path, value)).encode()
            check_rejected_or_harmless(golden.topic, payload)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
@pytest.mark.parametrize("level", BAD_LEVELS, ids=lambda level: repr(level)[:12])
def test_an_invalid_id_matches_no_topic(golden: Golden, level: str) -> None:
    """The topic alone identifies the sender of a message."""
    parts = golden.topic.split("/")
    parts[3] = level
    with pytest.raises(ContractError):
        decode("/".join(parts), golden.payload)


@given(st.sampled_from(GOLDEN), st.data())
def test_any_bytes_anywhere_are_rejected_or_harmless(golden: Golden, data: st.DataObject) -> None:
    """Arbitrary generated values are rejected or harmless too."""
    payload = golden.payload
    start = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(start, min(len(payload), start + 20)))
    hostile = payload[:start] + data.draw(st.binary(max_size=20)) + payload[end:]
    check_rejected_or_harmless(golden.topic, hostile)
