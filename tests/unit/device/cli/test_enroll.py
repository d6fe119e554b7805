"""Test `wfm-device enroll`: pictures of a folder become templates of the device."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from broker_bridge.common.template_choice import MAX_TEMPLATES, choose_templates, find_outliers
from broker_bridge.contract.embeddings import Vector
from deploy.local.sample_video import IDENTITIES, enrollment_photo
from device.bootstrap import sole_owner
from device.cli.enroll import enroll
from device.store.cursor import SyncCursor
from device.store.db_manager import DatabaseManager
from tests.device_samples import person

Enroll = Callable[..., Result]
SPACE = "face:resnet29-512"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return seven pictures of one person, a wall, a text file and a broken picture.

    The seven pictures get darker one after another.
    """
    folder = tmp_path / "pictures"
    folder.mkdir()
    portrait = cv2.imdecode(
        np.frombuffer(enrollment_photo(IDENTITIES["EMP-10001"]), np.uint8), cv2.IMREAD_COLOR
    )
    for n in range(7):
        darker = cv2.convertScaleAbs(portrait, alpha=1.0 - 0.06 * n)
        moved = cv2.warpAffine(darker, np.float32([[1, 0.01 * n, 4 * n], [0, 1, -3 * n]]), (480, 480))
        cv2.imwrite(str(folder / f"{n}.png"), moved)
    cv2.imwrite(str(folder / "wall.jpg"), np.full((480, 640, 3), 120, np.uint8))
    (folder / "text.JPG").write_text("hello")
    (folder / "notes.txt").write_text("hello")
    return folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(data_dir: Path) -> Enroll:
    """Return a function that runs the command, in dev mode by default."""
    app = typer.Typer()
    app.command()(enroll)

    def invoke(user: str, folder: Path, **changed: str) -> Result:
        environment = {
            "WFM_DEVICE__ID": "cam-001",
            "WFM_DEVICE__SITE": "lobby",
            "WFM_DEVICE__DATA_DIR": str(data_dir),
            "WFM_DEVICE__DEV_MODE": "true",
            **changed,
        }
        return CliRunner().invoke(app, ["--user", user, "--images", str(folder)], env=environment)

    return invoke


def rows(data_dir: Path) -> list[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(data_dir / "device.db")) as file:
        return file.execute("SELECT user_id, space, detector FROM enrolled_users").fetchall()


def test_a_folder_becomes_at_most_five_templates_of_one_identity(
    run: Enroll, folder: Path, data_dir: Path
) -> None:
    """The configured detector and embedder make the templates.

    Each unusable file is listed with its reason.
    """
    result = run("EMP-10001", folder)
    assert result.exit_code == 0, result.output
    assert "text.JPG: this is no picture: a photo is a JPEG, PNG or WebP file\n" in result.output
    assert "wall.jpg: no face was found" in result.output
    assert "notes.txt" not in result.output
    assert rows(data_dir) == [("EMP-10001", SPACE, "cascade")]
    db = DatabaseManager(data_dir / "device.db", dev_mode=True)
    db.initialize()
    user_ids, vectors = db.load_gallery(SPACE)
    db.close()
    assert 2 <= len(user_ids) <= MAX_TEMPLATES
    assert set(user_ids) == {"EMP-10001"}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert f"EMP-10001: {len(user_ids)} templates of {SPACE} from 7 of 9 pictures" in result.output


def test_a_folder_without_usable_pictures_enrolls_no_identity(
    run: Enroll, tmp_path: Path, data_dir: Path
) -> None:
    """The exit status is 1, and each picture has its reason."""
    empty = tmp_path / "walls"
    empty.mkdir()
    cv2.imwrite(str(empty / "wall.png"), np.full((200, 200, 3), 120, np.uint8))
    result = run("EMP-10001", empty)
    assert result.exit_code == 1
    assert "wall.png: no face was found" in result.output
    assert "EMP-10001 was not enrolled: none of 1 pictures can be used" in result.output
    assert rows(data_dir) == []


def test_enroll_is_refused_in_production(run: Enroll, folder: Path, data_dir: Path) -> None:
    """The exit status is 2, and the database does not change."""
    result = run("EMP-10001", folder, WFM_DEVICE__DEV_MODE="false")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "in production every person comes from the registry" in result.output
    assert not data_dir.exists()


def test_enroll_keeps_an_identity_of_the_registry(run: Enroll, folder: Path, data_dir: Path) -> None:
    """The next sync would replace the local templates again."""
    db = DatabaseManager(data_dir / "device.db", dev_mode=True)
    db.initialize()
    db.apply_delta([person("EMP-1", 1, 1, space="face:test-8")], [], SyncCursor("lobby", (), "aa", 1))
    db.close()
    result = run("EMP-1", folder)
    assert (result.exit_code, result.output) == (
        2,
        "EMP-1 comes from the registry: enroll there, or use another id\n",
    )


def test_enroll_is_refused_while_the_device_runs(run: Enroll, folder: Path, data_dir: Path) -> None:
    """A running device would not load the new templates."""
    with sole_owner(data_dir):
        result = run("EMP-10001", folder)
    assert result.exit_code == 2
    assert "another device runs on this folder" in result.output


@pytest.mark.parametrize("user", ["", "a b", "EMP/1", "x" * 200])
def test_an_invalid_user_id_is_refused(run: Enroll, folder: Path, user: str) -> None:
    """The command ends before it opens a file."""
    result = run(user, folder)
    assert result.exit_code == 2
    assert "is no user id" in " ".join(result.output.split())


def unit(values: np.ndarray) -> Vector:
    vectors = np.asarray(values, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_templates_are_chosen_by_quality_and_difference(seed: int, count: int) -> None:
    """At most five are chosen, none twice, none below half of the best quality."""
    source = np.random.default_rng(seed)
    vectors, qualities = unit(source.normal(size=(count, 8))), source.uniform(0.01, 1.0, count)
    chosen = choose_templates(vectors, qualities)
    assert chosen[0] == qualities.argmax()
    assert len(set(chosen)) == len(chosen) <= MAX_TEMPLATES
    assert all(qualities[chosen] >= 0.5 * qualities.max())


def test_a_copy_of_a_picture_gives_no_template() -> None:
    """A picture from another side gives a second template."""
    front, side = np.eye(8)[:2]
    assert choose_templates(unit(np.stack([front, front, side, front])), [0.8, 0.9, 0.7, 0.8]) == [1, 2]
    assert choose_templates(np.empty((0, 8), np.float32), []) == []


def test_a_picture_of_another_person_is_found() -> None:
    """An outlier is far from the most typical picture; two pictures have no outlier."""
    source = np.random.default_rng(5)
    anna, ben = source.normal(size=(2, 512))
    pictures = unit(np.stack([*(anna + 0.5 * source.normal(size=(4, 512))), ben]))
    assert find_outliers(pictures, 0.7) == [4]
    assert find_outliers(pictures[3:], 0.7) == []
