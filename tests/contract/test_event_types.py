"""Check that every event type of the contract has a code."""

from broker_bridge.contract.ids import EVENT_CODES, EVENT_TYPES


def test_every_event_type_has_a_code() -> None:
    """`EVENT_CODES` names each type of `EventType` and no other, in the same order."""
    assert tuple(EVENT_CODES) == EVENT_TYPES
