"""Check the table, the examples and the codes of docs/wire.md."""

import re
from pathlib import Path

import pytest

from broker_bridge.contract import errors
from broker_bridge.contract.channels import CHANNELS, decode
from broker_bridge.contract.messages import Heartbeat

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^(wfm/v1/\S+) (\{.*\})$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("topic", "payload"), EXAMPLES, ids=[topic for topic, _ in EXAMPLES])
def test_an_example_is_a_message(topic: str, payload: str) -> None:
    """An example on the page decodes and encodes to the same payload."""
    decoded = decode(topic, payload.encode())
    assert decoded.message.to_json().decode() == payload


def test_the_table_on_the_page_is_the_table() -> None:
    """The page has topic, direction, QoS, retention and message of every row."""
    rows = re.findall(r"^\| `(wfm/v1/[^`]+)` \| (\w+) \| (\d) \| (\w*) ?\| (\w+)", PAGE, re.MULTILINE)
    assert rows == [
        (
            channel.pattern,
            channel.direction,
            str(channel.qos),
            "retained" if channel.retain else "shared" if channel.shared else "",
            channel.message.__name__,
        )
        for channel in CHANNELS
    ]


def test_every_code_of_the_contract_is_explained() -> None:
    """The page explains every code of the contract."""
    codes = {value for name, value in vars(errors).items() if name.isupper()}
    explained = set(re.findall(r"^\| `([a-z]+(?:-[a-z]+)+)` \|", PAGE, re.MULTILINE))
    assert codes == explained


def test_every_field_of_a_heartbeat_is_explained() -> None:
    """The page explains every field of a heartbeat."""
    table = PAGE[PAGE.index("A heartbeat, of which") : PAGE.index("## Codes")]
    named = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    explained = set(re.findall(r"`(\w+)`", " ".join(named)))
    assert explained == set(Heartbeat.model_fields) - {"device_id", "at"}
