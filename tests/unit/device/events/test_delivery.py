"""When a device sends its events again."""

from pathlib import Path

import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, Decoded
from broker_bridge.contract.messages import Receipts
from broker_bridge.contract.wire import WireModel
from device.events.delivery import EventDelivery
from device.store.connection import StoreConnection
from device.store.outbox import Outbox
from tests.device_samples import Clock, ModelRegistry, ScriptedLink, event, seeded


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (channels.RECEIPT, Receipts(stored=["EV1-1736942400000-ffffff"], rejected=[])),
        (channels.SYNC_HEAD, ModelRegistry().head()),
    ],
    ids=["receipt for another event", "head"],
)
def test_waiting_events_go_out_when_the_bridge_works_again(
    tmp_path: Path, channel: Channel, message: WireModel
) -> None:
    """Their pauses have grown to minutes while nothing answered."""
    clock, link = Clock(), ScriptedLink()
    store = StoreConnection(tmp_path / "device.db")
    store.open()
    outbox = Outbox(store, utc_now=clock.utc_now, source=seeded())
    delivery = EventDelivery(outbox, link)
    delivery.connected(clock())
    outbox.put(event(1))
    delivery.tick(clock())
    while (due := outbox.next_due()) is not None and due - clock() < 60:
        clock.advance(due - clock())
        delivery.tick(clock())
    sent = len(link.of(channels.EVENT))
    clock.advance(11)
    delivery.tick(clock())
    assert len(link.of(channels.EVENT)) == sent

    delivery.receive_message(Decoded(channel, {}, message))
    delivery.tick(clock())
    clock.advance(0.1)
    delivery.tick(clock())
    assert len(link.of(channels.EVENT)) == sent + 1
    store.close()
