"""The dashboard page shows every event type of the contract."""

import re

from broker_bridge.contract.ids import EVENT_TYPES
from deploy.local.stack import ROOT

TABLE = ROOT / "dashboard_api" / "ui" / "event_types.js"


def test_the_page_has_a_label_for_each_event_type() -> None:
    """A type that is missing in one of the two tables fails here."""
    shown = re.findall(r"^  (\w+): \{ label:", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(EVENT_TYPES)
