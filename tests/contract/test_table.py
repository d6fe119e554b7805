"""Check that the channel table equals the published one."""

import pytest

from broker_bridge.contract.channels import CHANNELS, find
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import UpMessage
from tests.contract.golden_messages import GOLDEN

PUBLISHED = """
wfm/v1/device/{device_id}/up/status                 up   1 retained        DeviceStatus
wfm/v1/device/{device_id}/up/info                   up   1 retained        DeviceInfo
wfm/v1/device/{device_id}/up/heartbeat              up   0 -               Heartbeat
wfm/v1/device/{device_id}/up/event/{event_type}     up   1 shared          Event
wfm/v1/device/{device_id}/up/observation            up   0 -               Observation
wfm/v1/device/{device_id}/up/enrollment/request     up   1 shared          SyncRequest
wfm/v1/device/{device_id}/up/enrollment/applied     up   1 retained        SyncApplied
wfm/v1/device/{device_id}/up/enrollment/register    up   1 shared          RegisterIdentity
wfm/v1/device/{device_id}/up/config/reported        up   1 retained        ReportedConfig
wfm/v1/device/{device_id}/up/command/result         up   1 -               CommandResult
wfm/v1/device/{device_id}/down/event/receipt        down 1 -               Receipts
wfm/v1/device/{device_id}/down/observation/assigned down 0 -               Assignment
wfm/v1/device/{device_id}/down/enrollment/page      down 1 -               SyncPage
wfm/v1/device/{device_id}/down/enrollment/registered down 1 -              Registered
wfm/v1/device/{device_id}/down/config/desired       down 1 retained        DesiredConfig
wfm/v1/device/{device_id}/down/command/{command}    down 1 -               Command
wfm/v1/site/{site_id}/enrollment/head               down 1 retained        SyncHead
wfm/v1/site/{site_id}/enrollment/delta              down 1 -               SyncDelta
"""


def test_the_table_is_the_published_one() -> None:
    """Every cell equals the published one; a change would need a new wire version."""
    table = [
        [
            channel.pattern,
            channel.direction,
            str(channel.qos),
            "retained" if channel.retain else "shared" if channel.shared else "-",
            channel.message.__name__,
        ]
        for channel in CHANNELS
    ]
    assert table == [line.split() for line in PUBLISHED.strip().splitlines()]


def test_nothing_retained_is_shared() -> None:
    """A shared subscription never receives retained messages."""
    assert not [channel.name for channel in CHANNELS if channel.retain and channel.shared]


def test_upward_messages_and_no_others_may_name_their_device() -> None:
    """Upward messages carry the check of the device id, and only they."""
    for channel in CHANNELS:
        assert issubclass(channel.message, UpMessage) == (channel.direction == "up")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_a_topic_belongs_to_one_channel(golden) -> None:  # type: ignore[no-untyped-def]
    """No two rows match the same topic, and the ids in a topic give that topic again."""
    matching = [channel for channel in CHANNELS if channel.match(golden.topic) is not None]
    assert len(matching) == 1
    channel, ids = find(golden.topic)
    assert channel is matching[0]
    assert channel.topic(**ids) == golden.topic


def test_the_filter_of_a_row_has_a_plus_for_each_id() -> None:
    """A filter is the pattern with a plus for each placeholder."""
    filters = {channel.name: channel.filter for channel in CHANNELS}
    assert filters["event"] == "wfm/v1/device/+/up/event/+"
    assert filters["sync_head"] == "wfm/v1/site/+/enrollment/head"


@pytest.mark.parametrize("hostile", ["", "a/b", "+", "#", "a\0", "a b", "c\u0430m", "a" * 65])
def test_no_id_widens_a_topic(hostile: str) -> None:
    """An id that is not one level of a topic raises `topic-unknown`."""
    for channel in CHANNELS:
        _, ids = find(next(g.topic for g in GOLDEN if channel.match(g.topic)))
        for name in ids:
            with pytest.raises(ContractError, match="topic-unknown"):
                channel.topic(**{**ids, name: hostile})
