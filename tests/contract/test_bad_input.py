"""Check the error code of each broken or hostile message."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract import errors
from broker_bridge.contract.channels import decode
from broker_bridge.contract.claimed_ids import claimed_id
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import MAX_UP_BYTES, WireModel, decode_image
from tests.contract.golden_messages import BY_NAME

EVENT = BY_NAME["event-facial-id"]


def code_of(topic: str, payload: bytes) -> str:
    with pytest.raises(ContractError) as caught:
        decode(topic, payload)
    assert 0 < len(caught.value.detail) <= 1000
    return caught.value.code


def event_with(**changes: Any) -> bytes:
    return json.dumps({**EVENT.document, **changes}).encode()


def event_with_metadata(text: str) -> bytes:
    """Return the event with `text` as its metadata, which json.dumps could not write."""
    return event_with(metadata="HERE").replace(b'"HERE"', text.encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"17",
        b'"text"',
        b"{",
        b"{}",
        b"\xff\xfe{}",
        b'{"a":1}{"b":2}',
        b"\x00",
        b"[" * 100_000,
    ],
    ids=["empty", "null", "list", "number", "text", "open", "bare", "utf-16", "two", "nul", "deep"],
)
def test_a_payload_of_another_form_is_invalid(payload: bytes) -> None:
    """Every payload that is not the message is invalid, and none crashes the decoder."""
    # Nothing in a receipt is required, so `{}` is one.
    for name in BY_NAME if payload != b"{}" else BY_NAME.keys() - {"receipt"}:
        assert code_of(BY_NAME[name].topic, payload) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize(
    "metadata",
    [
        '{"distance": NaN}',
        '{"distance": Infinity}',
        '{"distance": -Infinity}',
        '{"distance": 1e999}',
        '{"count": 9223372036854775808}',
        '{"count": -9223372036854775809}',
        '{"count": 1' + "0" * 400 + "}",
        '{"nul\\u0000key": 1}',
        '{"deep": {"nul\\u0000key": 1}}',
        '{"": 1}',
        '{"' + "k" * 129 + '": 1}',
        '{"d": ' * 9 + "1" + "}" * 9,
        '{"d": [{"n": [NaN]}]}',
        '{"lone": "\\ud800"}',
    ],
)
def test_metadata_that_no_database_can_store_is_rejected(metadata: str) -> None:
    """Metadata that BSON or SQLite cannot store is rejected."""
    assert code_of(EVENT.topic, event_with_metadata(metadata)) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize(
    "metadata",
    [
        '{"count": 9223372036854775807}',
        '{"count": -9223372036854775808}',
        '{"note": "caf\\u00e9 \\ud83d\\ude00"}',
        '{"list": [1, 2.5, null, true, "x", {}]}',
        "{}",
        '{"a.b": 1, "$set": 2}',
    ],
)
def test_valid_metadata_passes_unchanged(metadata: str) -> None:
    """Metadata passes unchanged with free keys and all JSON types."""
    message = decode(EVENT.topic, event_with_metadata(metadata)).message
    assert message.metadata == json.loads(metadata)
    assert json.loads(message.to_json())["metadata"] == json.loads(metadata)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-0.01", "1.01", '"0.9"', "true"]
)
def test_a_confidence_is_a_number_from_0_to_1(number: str) -> None:
    """A confidence of NaN or outside of 0 to 1 is rejected."""
    assert code_of(EVENT.topic, event_with(confidence="HERE").replace(b'"HERE"', number.encode())) == (
        errors.PAYLOAD_INVALID
    )


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00.000Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-02-30T10:00:00Z",
        "2026-01-15T10:00:00",
        "2026-01-15 10:00:00Z",
        "2026-01-15",
        "1768471200",
        "2026-01-15T10:00:00.000Z ",
        "2026-01-15T24:00:00Z",
        "2026-01-15T10:00:61Z",
        "2026-01-15T10:60:00Z",
        "2026-01-15T10:00:00+24:00",
        "2026-01-15T10:00:00+01:60",
        "2026-01-15T10:00:00+0100",
        "2026-01-15T10:00:00,5Z",
        "2026-01-15T10:00:00.Z",
        "9999-12-31T23:59:60Z",
        "0001-01-01T00:00:00+00:01",
        "\u0662\u0660\u0662\u0666-01-15T10:00:00Z",
        "",
    ],
)
def test_a_time_that_is_not_rfc_3339_or_out_of_the_calendar_is_rejected(text: str) -> None:
    """Years outside 1..9999, missing offsets and other notations are rejected."""
    assert code_of(EVENT.topic, event_with(timestamp=text)) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("2026-01-15T11:00:00+01:00", "2026-01-15T10:00:00.000Z"),
        ("2026-01-15T10:00:00.123999Z", "2026-01-15T10:00:00.123Z"),
        ("2026-01-15T10:00:00.5Z", "2026-01-15T10:00:00.500Z"),
        ("2026-01-15T10:00:00.123456789Z", "2026-01-15T10:00:00.123Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("2026-01-15t10:00:00z", "2026-01-15T10:00:00.000Z"),
        ("2026-01-15T10:00:00.25z", "2026-01-15T10:00:00.250Z"),
        ("2026-01-15t11:30:00+01:30", "2026-01-15T10:00:00.000Z"),
        ("2026-01-15T10:00:00-00:00", "2026-01-15T10:00:00.000Z"),
        ("2026-01-15T10:00:00.1234567890123456789Z", "2026-01-15T10:00:00.123Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2016-12-31T23:59:60.750z", "2017-01-01T00:00:00.750Z"),
        ("2016-12-31T15:59:60-08:00", "2017-01-01T00:00:00.000Z"),
        ("2026-01-15T10:00:60Z", "2026-01-15T10:01:00.000Z"),
        ("2024-02-28T23:59:60Z", "2024-02-29T00:00:00.000Z"),
    ],
)
def test_times_are_converted_to_utc_with_milliseconds(text: str, normal: str) -> None:
    """Any RFC 3339 offset is decoded; one form is encoded."""
    message = decode(EVENT.topic, event_with(timestamp=text)).message
    assert json.loads(message.to_json())["timestamp"] == normal


def test_an_upward_message_has_at_most_256_kib() -> None:
    """A byte past the limit is `payload-too-large` upward; downward has no such limit."""
    room = MAX_UP_BYTES - len(event_with(image=""))
    decode(EVENT.topic, event_with(image="A" * room))
    assert code_of(EVENT.topic, event_with(image="A" * (room + 1))) == errors.PAYLOAD_TOO_LARGE
    page = BY_NAME["sync_page"]
    decode(page.topic, json.dumps({**page.document, "padding": "x" * MAX_UP_BYTES}).encode())


def test_an_event_belongs_on_the_topic_of_its_type() -> None:
    """A visit on the topic of facial_id is rejected, as is an unknown type."""
    assert code_of("wfm/v1/device/cam-001/up/event/visit", EVENT.payload) == errors.PAYLOAD_INVALID
    assert code_of("wfm/v1/device/cam-001/up/event/dance", event_with(event_type="dance")) == (
        errors.PAYLOAD_INVALID
    )


@pytest.mark.parametrize(
    ("event_type", "changes"),
    [
        ("facial_id", {"user_id": None}),
        ("facial_id", {"emotion_code": "EV2.2"}),
        ("unknown", {}),
        ("emotion", {}),
        ("emotion", {"emotion_code": "EV1"}),
        ("emotion", {"emotion_code": "EV2.2\n"}),
    ],
)
def test_the_fields_of_an_event_fit_its_type(event_type: str, changes: dict[str, Any]) -> None:
    """Only `unknown` has no user_id, only `emotion` has an emotion_code."""
    topic = f"wfm/v1/device/cam-001/up/event/{event_type}"
    assert code_of(topic, event_with(event_type=event_type, **changes)) == errors.PAYLOAD_INVALID


@pytest.mark.parametrize("text", ["<base64-jpeg>", "", "AAAA", "/9j/4AA", "/9j/4AA=\n", "/9j/\u00e9"])
def test_an_image_is_a_base64_jpeg(text: str) -> None:
    """An image is checked when it is decoded, apart from its event."""
    with pytest.raises(ContractError) as caught:
        decode_image(text)
    assert caught.value.code == errors.IMAGE_INVALID


def test_a_jpeg_is_decoded() -> None:
    """Bytes that begin like a JPEG are returned unchanged."""
    assert decode_image("/9j/4AA=") == b"\xff\xd8\xff\xe0\x00"


@pytest.mark.parametrize(
    ("payload", "claimed"),
    [
        (b'{"event_id": "EV1-1-abcd", "confidence": "high"}', "EV1-1-abcd"),
        (b'{"event_id": "whatever it calls it"}', "whatever it calls it"),
        (b'{"event_id": 7}', None),
        (b'{"event_id": ""}', None),
        (b'{"event_id": "' + b"x" * 129 + b'"}', None),
        (b'{"event_id": "bell\\u0007"}', None),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b"1" * 5000, None),
        (b'{"event_id":"E1","confidence":0.9}\0', "E1"),
        (b'{"event_id":"E1","metadata":{"a":[1,2', "E1"),
        (b'{"event_id":"E1","image":"/9j/4AA', "E1"),
        (b'{"image":"\xff\xfe\x80","event_id":"E1"}', "E1"),
        (b'\xef\xbb\xbf{"event_id":"E1"}', "E1"),
        (b'\0\0{"event_id":"E1"}', "E1"),
        (b'{"event_id":"E1",}', "E1"),
        (b'{"event_id" : "E1" "confidence":1}', "E1"),
        (b'{"confidence":NaN,"event_id":"E1"}', "E1"),
        (b'{"n":' + b"9" * 5000 + b',"event_id":"E1"}', "E1"),
        (b'{"metadata":' + b"[" * 2000 + b"]" * 2000 + b',"event_id":"E1"}', "E1"),
        (b'{"event_id":"E1","event_id":"E2"', "E2"),
        (b'{"event_id":"E1"}{"event_id":"E2"}', "E1"),
        (b'{"event\\u005fid":"E\\u0031"', "E1"),
        (b'{"note":"\\"event_id\\":\\"E9\\"","event_id":"E1"', "E1"),
        (b'{"metadata":{"event_id":"E9"},"confidence":', None),
        (b'{"note":"event_id","x":"E9"', None),
        (b'[{"event_id":"E9"}', None),
        (b'"event_id":"E9"}', None),
        (b'{"event_id":"E', None),
        (b'{"event_id":"\xff"', None),
        (b'{"event_id":{"event_id":"E9"}', None),
        (b'{"event_id":null', None),
        ('{"event_id":"E1"}'.encode("utf-16"), None),
        (b'{"a":' + b"[" * 300_000, None),
        (b"", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_id_of_an_invalid_event_is_found(payload: bytes, claimed: str | None) -> None:
    """A rejection names the invalid event where its id is readable."""
    assert claimed_id(payload, "event_id") == claimed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
topics = st.sampled_from([golden.topic for golden in BY_NAME.values()])


def code_or_message(topic: str, payload: bytes) -> object:
    try:
        return decode(topic, payload).message
    except ContractError as error:
        return error.code


@given(topic=topics | st.text(max_size=80), payload=st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_a_contract_error(topic: str, payload: bytes) -> None:
    """Any payload gives a message or a code."""
    assert code_or_message(topic, payload)


@given(name=st.sampled_from(sorted(BY_NAME)), data=st.data())
def test_one_arbitrary_field_raises_nothing_but_a_contract_error(name: str, data: st.DataObject) -> None:
    """A message with one field replaced is rejected, or decoded and encoded again."""
    golden = BY_NAME[name]
    field = data.draw(st.sampled_from(sorted(golden.document)))
    payload = json.dumps({**golden.document, field: data.draw(json_values)}).encode()
    message = code_or_message(golden.topic, payload)
    if isinstance(message, WireModel):
        assert decode(golden.topic, message.to_json()).message == message
