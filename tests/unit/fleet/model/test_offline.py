"""`wfm-fleet model add` and `calibrate` without an API."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord
from device.vision.model_record import read_record
from fleet.__main__ import app
from tests.networks import save_arcface_like, save_channel_means

LIMITS = {
    "distance": 0.6,
    "margin": 0.05,
    "same_person": 0.45,
    "look_alike": 0.4,
    "tracked_similarity": 0.42,
    "tracked_margin": 0.05,
    "tracked_by_position": 0.4,
}
SPACE = "face:other-64"


def run(*args: str | Path) -> Result:
    """Run `wfm-fleet model ARGS`."""
    return CliRunner().invoke(app, ["model", *map(str, args)], env={"COLUMNS": "240", "TERM": "dumb"})


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save_arcface_like(tmp_path / "other.onnx", dimension=64)


def record_of(network: Path) -> SpaceRecord:
    record = read_record(network)
    assert record is not None
    return record


def test_a_model_is_measured_and_recorded(network: Path, tmp_path: Path) -> None:
    """The record that the command writes is the one that cameras read."""
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps(LIMITS))
    options = ["--detector", "yunet", "--alignment", "box", "--limits", limits]
    done = run("add", network, "--space", SPACE, "--offline", *options)
    assert done.exit_code == 0, done.output
    record = record_of(network)
    assert (record.space, record.dimension, record.detector, record.alignment) == (SPACE, 64, "yunet", "box")
    assert (record.limits, record.source and record.source.kind) == (SpaceLimits(**LIMITS), "shipped")
    assert str(record.model_sha256)[:12] in done.output
    # The programs that load the model run as other users.
    assert network.with_suffix(".json").stat().st_mode & 0o044 == 0o044
    # Again, and by the record alone, without another answer.
    before = network.with_suffix(".json").read_bytes()
    for again in ([], ["--space", SPACE]):
        assert run("add", network, "--offline", *again).exit_code == 0
        assert network.with_suffix(".json").read_bytes() == before


def test_a_model_without_limits_is_told(network: Path) -> None:
    done = run("add", network, "--space", SPACE, "--offline")
    assert (done.exit_code, record_of(network).limits) == (0, None)
    assert "without limits nothing is matched" in done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name its space"),
        (["--space", "Face:X"], "expected a space such as"),
        (["--space", "gait:other"], "has a space face:<model>"),
        (["--space", DEFAULT_FACE_SPACE.space], "is the space of the built-in model"),
        (["--space", SPACE, "--limits", "none.json"], "cannot be read"),
        (["--space", SPACE, "--limits", "text.json"], "expected distance, margin"),
        (["--space", SPACE, "--limits", "part.json"], "margin"),
        (["--space", SPACE, "--limits", "order.json"], "look_alike must be at most same_person"),
    ],
)
def test_a_record_that_would_be_wrong_is_refused(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("no JSON")
    Path("part.json").write_text(json.dumps({"distance": 0.3}))
    Path("order.json").write_text(json.dumps(LIMITS | {"look_alike": 0.9}))
    refused = run("add", network, *options, "--offline")
    assert refused.exit_code == 2
    assert words in refused.output
    assert not network.with_suffix(".json").exists()


def test_a_file_that_is_no_model_of_faces_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    small = save_channel_means(tmp_path / "small.onnx", sides=(64, 64))
    for file, words in ((text, "text.onnx"), (small, "expected"), (tmp_path / "none.onnx", "none.onnx")):
        refused = run("add", file, "--space", SPACE, "--offline")
        assert (refused.exit_code, words in refused.output) == (2, True)
        assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    "change",
    [
        {"space": "face:another-64"},
        {"detector": "yunet"},
        {"dimension": 128},
        {"model_sha256": "0" * 64},
    ],
)
def test_another_record_is_replaced_by_force_alone(network: Path, change: dict[str, Any]) -> None:
    """Limits of another model, or of another space, are not taken over."""
    assert run("add", network, "--space", SPACE, "--offline").exit_code == 0
    right = record_of(network)
    wrong = right.model_copy(update={"limits": SpaceLimits(**LIMITS), **change})
    network.with_suffix(".json").write_text(wrong.model_dump_json(exclude_none=True))
    options = ["--space", SPACE, "--detector", "cascade", "--offline"]
    refused = run("add", network, *options)
    assert (refused.exit_code, "--force replaces it" in refused.output) == (2, True)
    assert record_of(network) == wrong
    assert run("add", network, *options, "--force").exit_code == 0
    limits = wrong.limits if set(change) == {"detector"} else None
    assert record_of(network) == right.model_copy(update={"limits": limits})


def test_a_calibration_is_shown_and_written_beside_the_model(network: Path, people: Path) -> None:
    """The photos of three people show nothing: the limits are written by force alone."""
    run("add", network, "--space", SPACE, "--offline")
    before = record_of(network)
    wanted = ["calibrate", people, "--model", network, "--people", "20", "--far", "0.01", "--offline"]
    shown = run(*wanted)
    assert shown.exit_code == 0, shown.output
    assert [name for name in SpaceLimits.model_fields if name not in shown.output] == []
    assert "12 impostor pairs are too few to show this chance, which takes 5,972" in shown.output
    assert record_of(network) == before
    refused = run(*wanted, "--record")
    assert (refused.exit_code, record_of(network)) == (1, before)
    forced = run(*wanted, "--record", "--force")
    assert forced.exit_code == 0, forced.output
    record = record_of(network)
    assert record.limits is not None
    assert record.source is not None
    assert (record.source.kind, record.source.pairs) == ("calibrated", 15)
    assert "too few pairs" in str(record.source.note)
    assert record.model_copy(update={"limits": None, "source": None}) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--people", "20"], "--far"),
        (["--far", "0.01"], "--people"),
        (["--people", "0", "--far", "0.01"], "--people"),
        (["--people", "20", "--far", "0"], "--far"),
        (["--people", "20", "--far", "1"], "--far"),
        (["--people", "20", "--far", "0.01", "--record"], "built-in model is a part of the product"),
        (["--people", "20", "--far", "0.01", "--space", "face:other"], "leave --space out"),
    ],
)
def test_a_calibration_with_wrong_options_is_refused(people: Path, options: list[str], words: str) -> None:
    refused = run("calibrate", people, "--offline", *options)
    assert refused.exit_code == 2
    assert words in refused.output
