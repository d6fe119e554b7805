"""The liveness of events and observations: a score and a method, or nothing."""

import json

import pytest

from broker_bridge.contract import errors
from broker_bridge.contract.channels import decode
from broker_bridge.contract.errors import ContractError
from tests.contract.golden_messages import BY_NAME, Golden

OBSERVATION = BY_NAME["observation"]
EVENTS = [BY_NAME[name] for name in ("event-facial-id", "event-emotion", "event-visit", "event-unknown")]
METHODS = ["", "x" * 33, "Depth", "de pth", "dépth", "depth\n", "a/b", 7, None]
VALID = [
    '{"score": 0, "method": "depth"}',
    '{"score": 1, "method": "d"}',
    '{"score": 0.5, "method": "depth_2-infrared"}',
    '{"score": 1e-300, "method": "' + "x" * 32 + '"}',
    '{"score": 0.5, "method": "depth", "model": {"of": "another firmware"}}',
    "null",
]
MALFORMED = [
    *(
        f'{{"score": {score}, "method": "depth"}}'
        for score in ("NaN", "Infinity", "1e999", "-0.1", "1.1", "1.000001", '"0.9"', "true", "null", "[1]")
    ),
    *(json.dumps({"score": 0.5, "method": method}) for method in METHODS),
    '{"score": 0.5}',
    '{"method": "depth"}',
    "{}",
    "0.9",
    "true",
    '"depth"',
    "[]",
    '[{"score": 0.5, "method": "depth"}]',
]  # fmt: skip


def payload_of(golden: Golden, liveness: str) -> bytes:
    """Return a message with `liveness`, which json.dumps could not write."""
    document = dict(golden.document)
    if golden is OBSERVATION:
        document["liveness"] = "HERE"
    else:
        document["metadata"] = {**document.get("metadata", {}), "liveness": "HERE"}
    return json.dumps(document).replace('"HERE"', liveness).encode()


@pytest.mark.parametrize("liveness", VALID)
@pytest.mark.parametrize("golden", [*EVENTS, OBSERVATION], ids=lambda golden: golden.name)
def test_a_score_from_0_to_1_with_a_method_is_read(golden: Golden, liveness: str) -> None:
    """Further keys are those of newer firmware, and null is none."""
    message = decode(golden.topic, payload_of(golden, liveness)).message
    if golden is not OBSERVATION:
        assert message.metadata["liveness"] == json.loads(liveness)
    elif liveness == "null":
        assert message.liveness is None
    else:
        assert message.liveness.score == json.loads(liveness)["score"]


@pytest.mark.parametrize("liveness", MALFORMED)
@pytest.mark.parametrize("golden", [EVENTS[0], EVENTS[3], OBSERVATION], ids=lambda golden: golden.name)
def test_another_liveness_is_rejected(golden: Golden, liveness: str) -> None:
    """The code is that of a broken message; the sentence names the field."""
    with pytest.raises(ContractError) as caught:
        decode(golden.topic, payload_of(golden, liveness))
    assert caught.value.code == errors.PAYLOAD_INVALID
    if "Infinity" not in liveness and "1e999" not in liveness and "NaN" not in liveness:
        assert "liveness" in caught.value.detail


def test_the_key_has_its_meaning_only_at_the_top_of_the_metadata() -> None:
    """Free keys stay free below, and under another name."""
    metadata = {"firmware": {"liveness": "high"}, "liveness_v2": 7, "Liveness": None}
    event = {**EVENTS[0].document, "metadata": metadata}
    assert decode(EVENTS[0].topic, json.dumps(event).encode()).message.metadata == metadata
