"""`make bench` works as one command, from the first group to the last."""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from rich.progress import Progress

from benchmarks import faces
from benchmarks.__main__ import GROUPS
from benchmarks.saturation.soak import soak
from deploy.local.sample_video import enrollment_photo

REPOSITORY = Path(__file__).parents[2]
ROWS = {
    "line": "event: camera to MongoDB",
    "sync": "cold sync of 100 people",
    "fanout": "4 up-to-date cameras reconnect: requests",
    "saturation": "1,000 events, two workers",
    "ingest": "ingest of 100 embeddings (base64)",
    "matching": "match 1 face among 1,000 (faiss)",
    "tracking": "start of a bridge, 2,000 people known",
    "search": "search 1,000 (faiss)",
    "course": "course of 4 people, 3 cameras",
    "pipeline": "pipeline: all but the networks, 4 faces",
    "images": "face in 1080p",
}


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(["line", "matching", "search", "course", "pipeline", "images"], id="six"),
        pytest.param(list(ROWS), id="all", marks=pytest.mark.long),
    ],
)
def test_the_short_form_runs_each_group(tmp_path: Path, groups: Sequence[str]) -> None:
    """Each group starts servers of its own; table and record have a row of each.

    The long form has those too that start many cameras or fill a registry.
    """
    assert set(ROWS) == set(GROUPS)
    chosen = [argument for group in groups for argument in ("--only", group)]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--short", "--record", str(tmp_path / "record"), *chosen],
        cwd=REPOSITORY,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "250", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    missing = {group: row for group, row in ROWS.items() if group in groups and row not in ended.stdout}
    assert missing == {}, ended.stdout
    record = (tmp_path / "record").read_text(encoding="utf-8")
    assert {group for group in groups if f"\n## {group}, " not in record} == set()
    assert [left.name for left in tmp_path.iterdir()] == ["record"]


def test_recognition_is_measured_on_a_folder_of_people(tmp_path: Path) -> None:
    """Rank-1, clips and tracker each have a row, and these two people are told apart."""
    for person in range(2):
        folder = tmp_path / f"person-{person}"
        folder.mkdir()
        photo = enrollment_photo(person)
        (folder / "1.jpg").write_bytes(photo)
        darker = Image.open(io.BytesIO(photo)).point(lambda level: level * 0.8)
        darker.save(folder / "2.jpg")
    rows = faces.measure(tmp_path, Progress(disable=True))
    assert [row.holds for row in rows] == [True, True, True]
    assert rows[0].must.startswith("rank-1 100.0% >= 98%, EER 0.0%")
    assert rows[2].must.startswith("pair recall 1.000 >= 0.85, 0 merged")


@pytest.mark.long
def test_a_soak_loses_no_event(tmp_path: Path) -> None:
    """Bridge, broker and mongod are each killed once under load."""
    with Progress(disable=True) as progress:
        counted = soak(tmp_path, minutes=1.2, rate=500, progress=progress)
    assert counted["kills"] == 3
    assert counted["sent"] > 20_000
    assert (counted["lost"], counted["unknown"]) == (0, 0)
