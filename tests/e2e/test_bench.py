"""`make bench` works as one command, from the first group to the last."""

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import GROUPS

REPOSITORY = Path(__file__).parents[2]
ROWS = {
    "line": "event: camera to MongoDB",
    "sync": "cold sync of 100 people",
    "fanout": "4 up-to-date cameras reconnect: requests",
    "ingest": "ingest of 100 embeddings (base64)",
    "matching": "match 1 face among 1,000 (faiss)",
    "tracking": "start of a bridge, 2,000 people known",
    "search": "search 1,000 (faiss)",
    "course": "course of 4 people, 3 cameras",
    "pipeline": "pipeline: all but the networks, 4 faces",
    "images": "face in 1080p",
}


def test_the_short_form_runs_every_group(tmp_path: Path) -> None:
    """Each group starts servers of its own in one run; the table has a row of each."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--short"],
        cwd=REPOSITORY,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "250", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert set(ROWS) == set(GROUPS)
    assert ended.returncode == 0, ended.stderr[-2000:]
    missing = {group: row for group, row in ROWS.items() if row not in ended.stdout}
    assert missing == {}, ended.stdout
    assert list(tmp_path.iterdir()) == []
