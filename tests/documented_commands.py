"""Read the commands that the pages of the documentation show."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMANDS = (
    "make", "pip", "curl", "mosquitto_sub", "mosquitto_pub", "python", "python3", "/usr/bin/python3", "npx",
    "npm", "wfm-bridge", "wfm-api", "wfm-device", "wfm-fleet", "wfm-worker", "systemctl", "nvcc", "sudo",
    "for", "docker", "mongodump", "mongorestore",
)  # fmt: skip


@dataclass(frozen=True)
class DocumentedCommand:
    """A command on a page, as words; variables stay as they are written."""

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def documented_commands() -> Iterator[DocumentedCommand]:
    """Yield the commands of every block and of every inline piece of code."""
    for path in PAGES:
        page = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            for line in block[2].replace("\\\n", " ").splitlines():
                yield from _command(page, line)
        for inline in _INLINE.finditer(_BLOCK.sub("", text)):
            yield from _command(page, inline[1])


def _command(page: str, line: str) -> Iterator[DocumentedCommand]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        # A piece of a JSON document or of a table, or a script over several lines.
        return
    while words and re.match(r"^[A-Z_]+=", words[0]):
        words.pop(0)
    if len(words) > 1 and words[0] in _COMMANDS:
        yield DocumentedCommand(page, tuple(words))
