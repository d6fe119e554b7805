"""`wfm-fleet model evaluate` on photographs of three people."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from fleet.__main__ import app
from fleet.report import ProgressBar
from tests.networks import save_arcface_like
from tests.unit.fleet.model.conftest import portrait, save


def run(*args: str | Path) -> Result:
    """Run `wfm-fleet model evaluate ARGS` with few resamples."""
    arguments = ["model", "evaluate", "--resamples", "40", *map(str, args)]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


def figures(folder: Path, *args: str | Path) -> dict[str, Any]:
    done = run(folder, "--json", "-", *args)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_model_is_measured(people: Path, tmp_path: Path) -> None:
    """The terminal has the figures, the files have all of them."""
    picture, file = tmp_path / "model.png", tmp_path / "model.json"
    done = run(people, "--picture", picture, "--json", file, "--clips")
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    camera = found["camera"]
    assert (camera["people"], camera["faces"]) == (3, 6)
    assert (camera["genuine_pairs"], camera["impostor_pairs"]) == (3, 12)
    assert (found["enrolled"]["genuine_pairs"], found["enrolled"]["impostor_pairs"]) == (6, 24)
    assert camera["rank1"]["value"] > 0.7
    assert camera["genuine"]["mean"] > camera["impostor"]["mean"]
    assert [tar["estimate"] for tar in camera["tar"]] == [None, None, None]
    assert "not shown: needs 100 impostor pairs" in done.output
    assert "not shown: needs 10,000 impostor pairs" in done.output
    assert found["model"]["model_sha256"] == DEFAULT_FACE_SPACE.model_sha256
    assert found["limits"] == DEFAULT_FACE_SPACE.model_dump()["limits"]
    outcome = camera["outcome"]
    assert outcome["right"] + outcome["wrong"] + outcome["unknown"] == 6
    assert outcome["taken"] + outcome["refused"] == 6
    # Each of three people is a stranger in one of four rounds; one of two photos is enrolled.
    clips = found["clips"]
    assert clips["right"] + clips["wrong"] + clips["unknown"] == 9
    assert clips["taken"] + clips["refused"] == 3
    assert clips["wrong"] == 0
    assert {"detect", "align", "quality", "embed"} <= set(found["milliseconds"])
    assert found["milliseconds"]["embed"] > 0
    assert DEFAULT_FACE_SPACE.space in done.output
    drawn = cv2.imdecode(np.frombuffer(picture.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert len(np.unique(drawn)) > 100


def test_listed_pairs_alone_are_compared(people: Path, tmp_path: Path) -> None:
    lines = ["anna 1 2", "ben 1 2", "anna 1 ben 2", "chris 1 ben 1", "anna/2.png, chris/1.png, impostor"]
    listed = tmp_path / "pairs.txt"
    listed.write_text("\n".join(lines))
    found = figures(people, "--pairs", listed)
    assert (found["camera"]["genuine_pairs"], found["camera"]["impostor_pairs"]) == (2, 3)
    assert (found["camera"]["rank1"], found["camera"]["outcome"], found["enrolled"]) == (None, None, None)
    assert found["photos"]["read"] == 5


@pytest.fixture
def folder(people: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder of people."""
    return Path(shutil.copytree(people, tmp_path / "people"))


def test_the_same_picture_counts_once_and_not_for_two_people(folder: Path) -> None:
    """A copy of the file, or of the pixels in another file, would match perfectly."""
    shutil.copy(folder / "anna/1.png", folder / "anna/4.png")
    pixels = cv2.imread(str(folder / "ben/1.png"))
    assert pixels is not None
    uncompressed = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
    (folder / "ben/4.png").write_bytes(uncompressed)
    assert (folder / "ben/1.png").read_bytes() != uncompressed
    save(folder / "anna/shared.png", portrait(0, 5))
    for name in ("ben", "chris"):
        shutil.copy(folder / "anna/shared.png", folder / name / "copy.png")
    found = figures(folder)
    codes = {item["name"]: item["code"] for item in found["left_out"]}
    assert codes == {
        "anna/4.png": "same-picture",
        "ben/4.png": "same-picture",
        "anna/shared.png": "picture-of-two",
        "ben/copy.png": "picture-of-two",
        "chris/copy.png": "picture-of-two",
    }
    assert len(found["left_out"]) == len(codes)
    assert (found["camera"]["faces"], found["camera"]["genuine_pairs"]) == (6, 3)
    assert found["camera"]["genuine"]["max"] < 1
    assert found["camera"]["impostor"]["max"] < 1


def test_photos_without_a_usable_face_are_counted_by_reason(folder: Path) -> None:
    save(folder / "anna/wall.png", np.full((300, 300, 3), 128, np.uint8))
    save(folder / "anna/couple.png", np.hstack([portrait(1, 7), portrait(2, 7)]))
    save(folder / "anna/dark.png", (portrait(0, 8) * 0.12).astype(np.uint8))
    (folder / "anna/cut.png").write_bytes((folder / "anna/1.png").read_bytes()[:2000])
    (folder / "anna/text.png").write_text("no picture")
    found = figures(folder)
    assert found["photos"]["read"] == 11
    assert found["photos"]["not_found"]["several-faces"] == 1
    assert found["photos"]["not_found"]["no-face"] >= 1
    assert sum(found["photos"]["not_found"].values()) + sum(found["photos"]["gated"].values()) == 3
    assert {item["name"] for item in found["left_out"]} == {"anna/cut.png", "anna/text.png"}
    assert found["camera"]["faces"] == 6


def test_a_model_without_a_record_has_figures_and_no_outcome(people: Path, tmp_path: Path) -> None:
    network = save_arcface_like(tmp_path / "other.onnx", dimension=64)
    file = tmp_path / "other.report"
    done = run(people, "--model", network, "--json", file)
    found = json.loads(file.read_text())
    assert (found["model"]["space"], found["model"]["dimension"]) == (None, 64)
    assert (found["limits"], found["camera"]["outcome"]) == (None, None)
    assert "a model without a record, 64 dimensions" in done.output


def test_clips_need_limits_and_a_folder_per_person(people: Path, tmp_path: Path) -> None:
    network = save_arcface_like(tmp_path / "other.onnx", dimension=64)
    for option, words in (
        (["--model", network], "needs limits"),
        (["--pairs", network], "leave --pairs out"),
    ):
        refused = run(people, "--clips", *option)
        assert (refused.exit_code, words in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            {"space": "face:other-128", "dimension": 128},
            "makes vectors of 64 numbers, and its record says 128",
        ),
        (
            {"space": "face:other-64", "dimension": 64, "model_sha256": "0" * 64},
            "its record says 000000000000",
        ),
        ({"space": "other"}, "is no record of a model"),
    ],
)
def test_a_record_of_another_model_is_refused(
    people: Path, tmp_path: Path, record: dict[str, object], words: str
) -> None:
    network = save_arcface_like(tmp_path / "other.onnx", dimension=64)
    network.with_suffix(".json").write_text(json.dumps(record))
    refused = run(people, "--model", network)
    assert refused.exit_code == 2
    assert words in refused.output


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (shutil.rmtree, "no such folder"),
        (
            lambda folder: [shutil.rmtree(folder / name) for name in ("ben", "chris")],
            "one person alone",
        ),
        # Faces are missing, not files.
        (
            lambda folder: [
                save(file, np.full((200, 200, 3), 99, np.uint8) + np.uint8(number))
                for number, file in enumerate(sorted(folder.rglob("*.png"))[1:])
            ],
            "of 6 photos 1 have a usable face, of 1 people (5 no-face)",
        ),
    ],
)
def test_a_folder_that_cannot_be_measured_ends_with_a_sentence(folder: Path, make: Any, words: str) -> None:
    make(folder)
    refused = run(folder)
    assert refused.exit_code == 2
    assert words in refused.output
    assert "Traceback" not in refused.output


@pytest.mark.parametrize("option", ["--picture", "--json"])
def test_a_file_that_cannot_be_written_is_told_before_the_measurement(tmp_path: Path, option: str) -> None:
    refused = run(tmp_path, option, tmp_path / "none" / "model.out")
    assert refused.exit_code == 2
    assert "there is no folder" in refused.output


def test_one_file_for_picture_and_json_is_refused(tmp_path: Path) -> None:
    refused = run(tmp_path, "--picture", "-", "--json", "-")
    assert (refused.exit_code, "name two files" in refused.output) == (2, True)


@pytest.mark.parametrize("stage", ["embedding", "bootstrap"])
def test_ctrl_c_ends_quietly(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Nothing is written, and no traceback is shown."""

    class InterruptedBar(ProgressBar):
        def __init__(self, console: Console, what: str, total: int | None) -> None:
            super().__init__(console, what, total)
            self._is_interrupted = what == stage

        def advance(self, by: int, details: str = "") -> None:
            super().advance(by, details)
            if self._is_interrupted and self.done == 3:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("fleet.model.evaluate.ProgressBar", InterruptedBar)
    file = tmp_path / "model.json"
    stopped = run(people, "--json", file)
    assert (stopped.exit_code, list(tmp_path.iterdir())) == (130, [])
    assert stopped.output == "stopped: nothing was written\n"
