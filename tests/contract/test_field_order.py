"""The small fields of a message stand before images, vectors and lists of them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from broker_bridge.contract.channels import decode
from tests.contract.golden_messages import GOLDEN, Golden

LARGE = {"image", "vector", "templates", "upserts"}


def misplaced(value: Any) -> Iterator[str]:
    """Yield each field that stands behind a large one."""
    if isinstance(value, list):
        for item in value:
            yield from misplaced(item)
    elif isinstance(value, dict):
        names = list(value)
        first_large = min((names.index(name) for name in LARGE & value.keys()), default=len(names))
        yield from (name for name in names[first_large:] if name not in LARGE)
        for child in value.values():
            yield from misplaced(child)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_no_field_stands_behind_a_large_one(golden: Golden) -> None:
    """A terminal that cuts a line still shows the metadata of an event."""
    line = decode(golden.topic, golden.payload).message.to_json()
    assert not list(misplaced(json.loads(line)))
