"""`wfm-device compare` says whether two photographs show one person."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from typer.testing import CliRunner

from deploy.local.sample_video import IDENTITIES, enrollment_photo
from device.__main__ import app
from device.cli.compare import judge
from tests.networks import LIMITS, save_arcface_like, save_record


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with photographs: two of one person, one of another."""
    picture = np.ascontiguousarray(astronaut()[..., ::-1])
    brighter = cv2.convertScaleAbs(picture[10:, 20:], alpha=1.05, beta=8)
    cv2.imwrite(str(tmp_path / "a.jpg"), picture)
    cv2.imwrite(str(tmp_path / "b.jpg"), brighter, [cv2.IMWRITE_JPEG_QUALITY, 80])
    (tmp_path / "c.jpg").write_bytes(enrollment_photo(next(iter(IDENTITIES.values()))))
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((300, 300, 3), 120, np.uint8))
    (tmp_path / "text.jpg").write_text("no picture")
    return tmp_path


def run(folder: Path, *names: str, **settings: str):
    environ = {f"WFM_DEVICE__{name.upper()}": value for name, value in settings.items()}
    environ["WFM_DEVICE__DATA_DIR"] = str(folder / "data")
    args = ["compare", *(name if name.startswith("-") else str(folder / name) for name in names)]
    return CliRunner().invoke(app, args, env=environ)


def test_two_photographs_of_one_person_are_one(photos: Path) -> None:
    """Nothing is configured: the built-in model and its limits are used."""
    result = run(photos, "a.jpg", "b.jpg")
    assert (result.exit_code, "show the same person" in result.stdout) == (0, True), result.output
    assert "limits of the record beside the model" in result.stdout
    assert not (photos / "data").exists()


def test_two_photographs_of_two_people_are_two(photos: Path) -> None:
    """The JSON has the figures of the sentence."""
    result = run(photos, "a.jpg", "c.jpg", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (1, "different")
    assert found["similarity"] < found["different_below"] <= found["same_from"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wall.png", "wall.png: "),
        ("text.jpg", "text.jpg: "),
        ("absent.jpg", "absent.jpg: cannot be read (No such file or directory)"),
    ],
)
def test_a_photograph_that_cannot_be_compared_is_a_sentence(photos: Path, name: str, words: str) -> None:
    result = run(photos, "a.jpg", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_model_without_limits_compares_nothing(photos: Path) -> None:
    """Configured thresholds are limits, and leave no verdict uncertain."""
    model = save_record(save_arcface_like(photos / "m.onnx"), limits=None)
    refused = run(photos, "a.jpg", "b.jpg", model=str(model))
    assert (refused.exit_code, "no limits are known for face:mine" in refused.stderr) == (2, True)
    limits = json.dumps({"face:mine": {"distance": 0.2}})
    found = json.loads(run(photos, "a.jpg", "a.jpg", "--json", model=str(model), thresholds=limits).stdout)
    assert (found["verdict"], found["same_from"], found["different_below"]) == ("same", 0.8, 0.8)


@pytest.mark.parametrize(
    ("similarity", "verdict"),
    [
        (1.0, "same"),
        (0.7, "same"),
        (0.69, "uncertain"),
        (0.65, "uncertain"),
        (0.64, "different"),
        (-1, "different"),
    ],
)
def test_between_the_limits_the_verdict_is_uncertain(similarity: float, verdict: str) -> None:
    """They are the distance of a match (0.35 is 0.65) and that of look-alikes."""
    assert judge("face:mine", similarity, 0.35, LIMITS, "here").verdict == verdict
