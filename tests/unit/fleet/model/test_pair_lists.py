"""Lists of pairs, in the forms that benchmarks have."""

from pathlib import Path

import pytest

from fleet.errors import CannotRunError
from fleet.model.faces.pair_lists import read_pair_lists

FILES = ("anna/anna_0001.jpg", "anna/anna_0002.jpg", "ben/ben_0001.jpg", "ben/ben_0003.jpg", "chris/1.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(b"")
    return tmp_path / "faces"


def read(folder: Path, text: str | bytes):  # type: ignore[no-untyped-def]
    """Return a list's genuine and impostor pairs, and the subject of each photo."""
    file = folder.parent / "pairs.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_pair_lists(folder, [file])
    names = [photo.name for photo in found.photos]
    assert found.pairs is not None
    pairs = [{(names[i], names[j]) for i, j in kind} for kind in (found.pairs.genuine, found.pairs.impostor)]
    return pairs[0], pairs[1], {photo.name: found.subjects[photo.subject] for photo in found.photos}


GENUINE = {("anna/anna_0001.jpg", "anna/anna_0002.jpg")}
IMPOSTOR = {("anna/anna_0001.jpg", "ben/ben_0003.jpg")}


@pytest.mark.parametrize(
    "text",
    [
        "1\t1\nanna\t1\t2\nanna\t1\tben\t3\n",
        "anna 1 2\nanna 1 ben 3",
        "anna,1,2\nanna,1,ben,3\n",
        "anna/anna_0001.jpg, anna/anna_0002.jpg, genuine\nanna/anna_0001.jpg, ben/ben_0003.jpg, impostor\n",
        "anna/anna_0001.jpg\tanna/anna_0002.jpg\t1\nanna/anna_0001.jpg\tben/ben_0003.jpg\t0\n",
        "anna/anna_0001.jpg anna/anna_0002.jpg Same\nanna/anna_0001.jpg ben/ben_0003.jpg different\n",
        "\ufeffanna 1 2\r\n\r\n# a remark\r\nanna 1 ben 3\r\n",
        # The same pair in both orders is one pair.
        "anna 1 2\nanna 2 1\nanna 1 ben 3\n",
    ],
)
def test_a_line_is_a_pair(folder: Path, text: str) -> None:
    genuine, impostor, subjects = read(folder, text)
    assert (genuine, impostor) == (GENUINE, IMPOSTOR)
    assert subjects["anna/anna_0001.jpg"] == subjects["anna/anna_0002.jpg"] != subjects["ben/ben_0003.jpg"]


def test_what_genuine_pairs_join_is_one_person(folder: Path) -> None:
    """Also over other photos; names join those of LFW's form."""
    _, _, subjects = read(folder, "anna 1 2\nben/ben_0001.jpg, chris/1.png, 1\nanna 1 ben 1\nben 3 anna 2\n")
    assert subjects["ben/ben_0001.jpg"] == subjects["chris/1.png"] == subjects["ben/ben_0003.jpg"]
    assert len(set(subjects.values())) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no genuine pair"),
        ("anna 1 2\n", "no impostor pair"),
        ("anna 1 ben 1\n", "no genuine pair"),
        ("anna 1 2\nanna\n", "line 2: expected"),
        ("anna 1 2\nanna/anna_0001.jpg, ben/ben_0001.jpg, perhaps\n", "line 2: expected"),
        ("anna 1 2\nanna 1 ben 1 7\n", "line 2: expected"),
        ("anna 1 9\n", "no photo anna/anna_0009.jpg"),
        ("anna/none.jpg, anna/anna_0001.jpg, 1\n", "no photo 'anna/none.jpg'"),
        ("../pairs.txt, anna/anna_0001.jpg, 1\n", "leads out of the folder"),
        ("/etc/passwd, anna/anna_0001.jpg, 0\n", "leads out of the folder"),
        ("anna 1 1\n", "line 1: a pair of a photo with itself"),
        ("anna 1 2\nanna/anna_0001.jpg, anna/anna_0002.jpg, impostor\n", "line 2: an impostor pair of two"),
        (b"\xff\xfe\x00anna", "UTF-8"),
    ],
)
def test_a_list_that_cannot_be_measured_is_refused(folder: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(CannotRunError, match=r"pairs\.txt") as refused:
        read(folder, text)
    assert words in str(refused.value)


def test_a_missing_list_is_refused(folder: Path) -> None:
    with pytest.raises(CannotRunError, match="cannot be read"):
        read_pair_lists(folder, [folder / "none.txt"])
