"""Load the golden messages: one JSON file each, frozen at wire version 1."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """A message of the wire; `name` is its file's."""

    name: str
    topic: str
    document: dict[str, Any]

    @property
    def payload(self) -> bytes:
        return json.dumps(self.document).encode()


def load() -> list[Golden]:
    """Return every golden message.

    A file without a topic is a bare event, as firmware in the field sends it.
    """
    messages = []
    for file in sorted(FOLDER.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if "topic" not in content:
            topic = f"wfm/v1/device/{content['device_id']}/up/event/{content['event_type']}"
            content = {"topic": topic, "payload": content}
        messages.append(Golden(file.stem, content["topic"], content["payload"]))
    return messages


GOLDEN = load()
BY_NAME = {golden.name: golden for golden in GOLDEN}
