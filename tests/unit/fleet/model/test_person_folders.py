"""Folders of photos per person, as people really leave them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.errors import CannotRunError
from fleet.model.faces.person_folders import read_person_folders

PNG = b"\x89PNG\r\n\x1a\n"


def write(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    return root


def link(root: Path, name: str, target: str) -> None:
    (root / name).symlink_to(target)


TWO = ("anna/1.png", "anna/2.png", "ben/1.png")


def test_each_folder_is_a_person(tmp_path: Path) -> None:
    found = read_person_folders(write(tmp_path, *TWO, "ben/without-an-ending"))
    assert found.subjects == ("anna", "ben")
    assert [(photo.subject, photo.name) for photo in found.photos] == [
        (0, "anna/1.png"),
        (0, "anna/2.png"),
        (1, "ben/1.png"),
        (1, "ben/without-an-ending"),
    ]
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("make", "name", "code"),
    [
        (lambda root: write(root, "README.md"), "README.md", "no-person"),
        (lambda root: write(root, "group.png"), "group.png", "no-person"),
        (lambda root: write(root, "anna/2020/3.png"), "anna/2020", "nested-folder"),
        (lambda root: (root / "anna/notes.txt").write_text("x"), "anna/notes.txt", "no-photo"),
        (lambda root: (root / "anna/none").write_bytes(b""), "anna/none", "no-photo"),
        (lambda root: (root / "empty").mkdir(), "empty", "no-photos"),
        (lambda root: link(root, "again", "anna"), "again", "symbolic-link"),
        (lambda root: link(root, "loop", "loop"), "loop", "symbolic-link"),
        (lambda root: link(root, "anna/up", ".."), "anna/up", "symbolic-link"),
        (lambda root: link(root, "ben/anna.png", "../anna/1.png"), "ben/anna.png", "symbolic-link"),
        (lambda root: link(root, "ben/gone.png", "nowhere"), "ben/gone.png", "symbolic-link"),
        (lambda root: os.mkfifo(root / "ben/pipe"), "ben/pipe", "no-photo"),
    ],
)
def test_what_is_no_photo_of_a_person_is_told(
    tmp_path: Path, make: Callable[[Path], object], name: str, code: str
) -> None:
    make(write(tmp_path, *TWO))
    found = read_person_folders(tmp_path)
    assert [(item.name, item.code) for item in found.left_out] == [(name, code)]
    assert len(found.photos) == 3


def test_hidden_files_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, *TWO, ".DS_Store", "anna/._1.png", ".git/config", "ben/.hidden/2.png")
    assert read_person_folders(tmp_path).left_out == ()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root, ["no photos", "anna/1.jpg"]),
        (lambda root: write(root, "1.png", "2.png"), ["files but no folder"]),
        (lambda root: write(root, "anna/1.png", "anna/2.png"), ["one person alone (anna)", "others"]),
        (
            lambda root: write(root, "anna/1.png", "ben/1.png"),
            ["one photo of each of 2 people", "second photo"],
        ),
        (lambda root: write(root, "train/anna/1.png", "train/ben/1.png"), ["train/anna", "is it", "train?"]),
        (lambda root: write(root, "anna/.1.png", "ben/.1.png"), ["no photos"]),
        (lambda root: (root / "anna").mkdir(), ["no photos"]),
    ],
)
def test_a_folder_without_pairs_is_refused(
    tmp_path: Path, make: Callable[[Path], object], words: list[str]
) -> None:
    make(tmp_path)
    with pytest.raises(CannotRunError) as refused:
        read_person_folders(tmp_path)
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("none", "no such folder"), ("file", "is a file"), ("loop", "circle"), ("closed", "cannot be read")],
)
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    link(tmp_path, "loop", "loop")
    (tmp_path / "closed").mkdir(mode=0)
    if name == "closed" and os.geteuid() == 0:
        pytest.skip("root reads every folder")
    with pytest.raises(CannotRunError, match=words):
        read_person_folders(tmp_path / name)


def test_a_link_to_the_folder_itself_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "real", *TWO)
    link(tmp_path, "faces", "real")
    assert len(read_person_folders(tmp_path / "faces").photos) == 3
