"""docs/wire.md says what the contract says: its table, its examples and its codes are checked."""

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
    """What stands on the page decodes, and is written by us as it stands there."""
    decoded = decode(topic, payload.encode())
    assert decoded.message.to_json().decode() == payload


def test_the_table_on_the_page_is_the_table() -> None:
    """Topic, way, QoS, retained or shared, and message of every row, in order."""
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
    """Who meets a code finds it on the page."""
    codes = {value for name, value in vars(errors).items() if name.isupper()}
    explained = set(re.findall(r"^\| `([a-z]+(?:-[a-z]+)+)` \|", PAGE, re.MULTILINE))
    assert codes == explained


def test_every_field_of_a_heartbeat_is_explained() -> None:
    """Who looks on with mosquitto_sub knows what each number is of."""
    table = PAGE[PAGE.index("A heartbeat, of which") : PAGE.index("## Codes")]
    named = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    explained = set(re.findall(r"`(\w+)`", " ".join(named)))
    assert explained == set(Heartbeat.model_fields) - {"device_id", "at"}
