"""Check that no id widens a filter, leaves a folder or imitates another id."""

import json
from typing import Any

import pytest

from broker_bridge.contract import errors
from broker_bridge.contract.channels import decode
from broker_bridge.contract.errors import ContractError
from tests.contract.golden_messages import BY_NAME

EVENT = BY_NAME["event-facial-id"]


def code_of(topic: str, payload: bytes) -> str:
    with pytest.raises(ContractError) as caught:
        decode(topic, payload)
    return caught.value.code


def event_with(**changes: Any) -> bytes:
    return json.dumps({**EVENT.document, **changes}).encode()


HOSTILE_IDS = [
    "", "a/b", "+", "#", "a+b", "a#", "a\0b", "a b", "a\n", "\n", "../x", "$SYS", "a" * 64,
    "c\u0430m-001", "cam\u2010001", "CAM-001", "-cam", "\uff43am", "caf\u00e9", "cam-\u0661", "a\u200b",
]  # fmt: skip
"""Cyrillic a, typographic hyphen, full-width letter, Arabic digit, zero-width space and other look-alikes."""


@pytest.mark.parametrize("device_id", HOSTILE_IDS)
def test_a_hostile_device_or_site_id_is_not_an_id(device_id: str) -> None:
    """A hostile id is rejected in a topic and in a payload."""
    assert code_of(f"wfm/v1/device/{device_id}/up/status", BY_NAME["status"].payload) == errors.TOPIC_UNKNOWN
    info = json.dumps({**BY_NAME["info"].document, "site_id": device_id}).encode()
    assert code_of(BY_NAME["info"].topic, info) == errors.PAYLOAD_INVALID
    head = BY_NAME["sync_head"]
    assert code_of(f"wfm/v1/site/{device_id}/enrollment/head", head.payload) == errors.TOPIC_UNKNOWN


@pytest.mark.parametrize(
    "user_id", [uid for uid in HOSTILE_IDS if uid not in ("CAM-001", "a" * 64)] + ["a" * 129]
)
def test_a_hostile_user_id_is_not_an_id(user_id: str) -> None:
    """A user id, used in file names, URLs and queries, is checked in full."""
    assert code_of(EVENT.topic, event_with(user_id=user_id)) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize(
    "event_id",
    [
        "EV1-1-",
        "EV1",
        "EV0-1-abcd",
        "EV1-1-abc",
        "EV1-1-a/bcd",
        "EV1-1-abcd\n",
        "EV1-1-" + "a" * 33,
        "ev1-1-abcd",
    ],
)
def test_an_event_id_has_its_form(event_id: str) -> None:
    """An event id, the key of an event, is checked to the last character."""
    assert code_of(EVENT.topic, event_with(event_id=event_id)) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "wfm/v1",
        "wfm/v2/device/cam-001/up/status",
        "/wfm/v1/device/cam-001/up/status",
        "wfm/v1/device/cam-001/up/status/",
        "wfm/v1/device/cam-001/up/status/more",
        "wfm/v1/device/+/up/status",
        "wfm/v1/device/cam-001/#",
        "wfm/v1/device/cam-001/up/status\0",
        "wfm/v1/device/cam-001/up/status\n",
        "wfm/v1/device//up/status",
        "wfm/v1/device/cam-001/up/Status",
        "$share/bridge/wfm/v1/device/cam-001/up/status",
    ],
)
def test_a_topic_outside_of_the_table_is_unknown(topic: str) -> None:
    """Topics with wildcards, NUL, other versions or extra levels have no channel."""
    assert code_of(topic, BY_NAME["status"].payload) == errors.TOPIC_UNKNOWN
