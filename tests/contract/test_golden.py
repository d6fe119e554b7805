"""Check that each golden message of version 1 decodes and encodes unchanged."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from broker_bridge.contract import errors
from broker_bridge.contract.channels import CHANNELS, decode
from broker_bridge.contract.errors import ContractError
from tests.contract.golden_messages import BY_NAME, GOLDEN, Golden


def refused(topic: str, payload: bytes) -> str:
    with pytest.raises(ContractError) as caught:
        decode(topic, payload)
    return caught.value.code


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_a_golden_message_survives_the_round_trip(golden: Golden) -> None:
    """A decoded message encodes as the same JSON document, field by field."""
    decoded = decode(golden.topic, golden.payload)
    assert json.loads(decoded.message.to_json()) == golden.document


def test_every_channel_has_a_golden_message() -> None:
    """Every message of the contract is frozen."""
    covered = {decode(golden.topic, golden.payload).channel.name for golden in GOLDEN}
    assert covered == {channel.name for channel in CHANNELS}


def test_the_events_of_the_seed_are_read_exactly() -> None:
    """The two event payloads of firmware in the field decode to the same fields."""
    facial = decode(BY_NAME["event-facial-id"].topic, BY_NAME["event-facial-id"].payload).message
    assert (facial.event_id, facial.user_id) == ("EV1-1736942400000-a1b2c3", "EMP-12345")
    assert facial.metadata == {"distance": 0.28, "frames_tracked": 5, "inference_ms": 45}
    assert facial.timestamp.isoformat() == "2026-01-15T10:00:00+00:00"
    emotion = decode(BY_NAME["event-emotion"].topic, BY_NAME["event-emotion"].payload).message
    assert (emotion.emotion_code, emotion.metadata["duration_ms"]) == ("EV2.2", 2500)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_unknown_fields_are_ignored(golden: Golden) -> None:
    """Fields of a newer sender change nothing."""
    more = json.dumps({**golden.document, "from_the_future": {"deep": [1, None]}}).encode()
    assert decode(golden.topic, more).message == decode(golden.topic, golden.payload).message


def required_fields() -> Iterator[Any]:
    for golden in GOLDEN:
        model: type[BaseModel] = decode(golden.topic, golden.payload).channel.message
        for name, field in model.model_fields.items():
            if field.is_required():
                yield pytest.param(golden, name, id=f"{golden.name}-{name}")


@pytest.mark.parametrize(("golden", "name"), list(required_fields()))
def test_a_missing_field_is_rejected_by_name(golden: Golden, name: str) -> None:
    """A message without a required field is invalid, and the error names the field."""
    less = {key: value for key, value in golden.document.items() if key != name}
    with pytest.raises(ContractError, match=rf"payload-invalid: {name}: ") as caught:
        decode(golden.topic, json.dumps(less).encode())
    assert caught.value.code == errors.PAYLOAD_INVALID


def field_values() -> Iterator[Any]:
    for golden in GOLDEN:
        for name, value in golden.document.items():
            yield pytest.param(golden, name, value, id=f"{golden.name}-{name}")


@pytest.mark.parametrize(("golden", "name", "value"), list(field_values()))
def test_a_value_of_another_type_is_rejected(golden: Golden, name: str, value: object) -> None:
    """Text is not converted to a number, nor a number to text."""
    wrongs: list[object] = [[[]], str(value) if isinstance(value, bool | int | float) else 17]
    for wrong in wrongs:
        document = {**golden.document, name: wrong}
        assert refused(golden.topic, json.dumps(document).encode()) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_a_payload_that_names_another_device_is_rejected(golden: Golden) -> None:
    """A `device_id` that differs from the topic is a device mismatch."""
    if "/up/" in golden.topic:
        document = {**golden.document, "device_id": "cam-002"}
        assert refused(golden.topic, json.dumps(document).encode()) == errors.DEVICE_MISMATCH


def test_an_error_never_quotes_the_value() -> None:
    """Error sentences, which go to logs, contain no (biometric) value."""
    document = {**BY_NAME["register"].document, "vector": "c2VjcmV0LWZhY2U"}
    with pytest.raises(ContractError) as caught:
        decode(BY_NAME["register"].topic, json.dumps(document).encode())
    assert "c2VjcmV0" not in str(caught.value)
