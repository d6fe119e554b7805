"""Sources yield identities, and a refusal for every other content."""

import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_bridge.contract.embeddings import from_base64, normalise
from fleet.errors import CannotRunError, FileRefusedError
from fleet.import_source import ImportCandidate, ImportRefusal, PhotoFile, SourceEntry
from fleet.readers import open_source
from fleet.readers.files import MAX_PHOTO_BYTES, read_photo
from fleet.readers.jsonl import read_jsonl
from fleet.readers.lines import MAX_LINE_LENGTH
from fleet.readers.npy import NpySpaces

JPEG = b"\xff\xd8\xff\xe0 a picture"
SPACE = "face:test-8"


def vector(n: int = 1, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(n).normal(size=dimension).astype(np.float32)


def entries(
    source: Path | str, sites: list[str] | None = None, space: str | None = None
) -> list[SourceEntry]:
    return list(open_source(str(source), sites or [], NpySpaces(space)).entries)


def candidates(found: list[SourceEntry]) -> list[ImportCandidate]:
    return [entry.candidate for entry in found if entry.candidate]


def refusals(found: list[SourceEntry]) -> list[ImportRefusal]:
    return [refusal for entry in found for refusal in entry.refusals]


def documents(found: list[SourceEntry]) -> list[dict[str, Any]]:
    return [json.loads(match.body) for match in candidates(found)]


def lines(data: bytes) -> list[SourceEntry]:
    return list(read_jsonl(io.BytesIO(data), "people.jsonl", []))


# JSON lines


def test_a_line_is_passed_on_unchanged() -> None:
    """Unknown fields stay; empty lines and a byte order mark are dropped."""
    found = lines(b'\xef\xbb\xbf{"user_id":"EMP-1","flag":"vip","more":[1.5]}\r\n\n{"user_id":"EMP-2"}')
    assert documents(found) == [{"user_id": "EMP-1", "flag": "vip", "more": [1.5]}, {"user_id": "EMP-2"}]
    assert [match.where for match in candidates(found)] == ["people.jsonl:1", "people.jsonl:3"]


BAD_LINES = {
    "no JSON": (b"hello", "not JSON"),
    "binary junk": (b"\xff\xfe\x00\x81", "not UTF-8"),
    "NUL": (b'{"user_id":"EMP\x00-1"}', "not JSON"),
    "NUL as an escape": (b'{"user_id":"EMP\\u0000-1"}', "no user id"),
    "a field twice": (b'{"user_id":"EMP-1","flag":"vip","flag":"red"}', "a field twice"),
    "a list": (b"[1]", "not a JSON object"),
    "NaN": (b'{"user_id":"EMP-1","quality":NaN}', "not JSON"),
    "a number with too many digits": (b'{"user_id":' + b"1" * 10_000 + b"}", "not JSON"),
    "a deep nest": (b"[" * 100_000, "nested too deeply"),
    "no user id": (b'{"name":"x"}', "no user id"),
    "a path": (b'{"user_id":"../EMP-1"}', "no user id"),
    "a long id": (b'{"user_id":"' + b"E" * 1_000_000 + b'"}', "no user id"),
    "an operator": (b'{"user_id":{"$where":"1"}}', "no user id"),
    "a line past the limit": (b'{"user_id":"EMP-1","x":"' + b"x" * MAX_LINE_LENGTH + b'"}', "more than"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_refused_alone(name: str) -> None:
    """The sentence names the line and quotes nothing of it; other lines are read."""
    bad, sentence = BAD_LINES[name]
    found = lines(b'{"user_id":"EMP-1"}\n' + bad + b'\n{"user_id":"EMP-3"}\n')
    (refusal,) = refusals(found)
    assert refusal.where == "people.jsonl:2"
    assert sentence in refusal.detail
    assert len(refusal.detail) < 200
    assert [match.user_id for match in candidates(found)] == ["EMP-1", "EMP-3"]


def test_a_line_of_100_mb_is_skipped_within_bounded_memory(tmp_path: Path) -> None:
    """Memory does not grow with the length of the line."""
    file = tmp_path / "people.jsonl"
    with file.open("wb") as out:
        out.truncate(100_000_000)
        out.seek(0, os.SEEK_END)
        out.write(b'\n{"user_id":"EMP-2"}\n')
    tracemalloc.start()
    found = entries(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [match.user_id for match in candidates(found)] == ["EMP-2"]
    assert refusals(found)[0].code == "payload-too-large"
    assert peak < 10_000_000


@pytest.mark.parametrize("lines", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_lines_are_read_one_at_a_time(tmp_path: Path, lines: int) -> None:
    """Memory does not grow with the file, and the total is known at the start."""
    file = tmp_path / "people.jsonl"
    file.write_text("".join(f'{{"user_id":"EMP-{n}","display_name":"Sample"}}\n' for n in range(lines)))
    tracemalloc.start()
    people = open_source(str(file), [], NpySpaces())
    count = sum(entry.candidate is not None for entry in people.entries)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (people.total, count) == (lines, lines)
    assert peak < 3_000_000


def test_sites_of_the_command_apply_to_entries_without_sites() -> None:
    """Sites of the source win, also an empty list, which means every site."""
    data = b'{"user_id":"A"}\n{"user_id":"B","sites":["gate"]}\n{"user_id":"C","sites":[]}'
    found = list(read_jsonl(io.BytesIO(data), "-", ["lobby"]))
    assert [match["sites"] for match in documents(found)] == [["lobby"], ["gate"], []]


# Tables


def table(folder: Path, text: bytes | str) -> Path:
    file = folder / "people.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    "text",
    [
        'user_id,display_name,flag,sites\nEMP-1,"Å, Sample",vip,lobby;gate\n',
        '\ufeffuser_id;display_name;flag;sites\r\nEMP-1;Å, Sample;vip;"lobby;gate"\r\n',
        'flag, sites, user_id ,display_name\n\nvip,lobby; gate,EMP-1,"Å, Sample"',
    ],
)
def test_tables_of_common_programs_are_read(tmp_path: Path, text: str) -> None:
    """Byte order mark, semicolons, line ends, column order and empty lines vary."""
    expected = {"user_id": "EMP-1", "display_name": "Å, Sample", "flag": "vip", "sites": ["lobby", "gate"]}
    assert documents(entries(table(tmp_path, text))) == [expected]


ROWS = "EMP-1,Ana Sample\nEMP-2,\nEMP-3,Åsa Øst\n"
TABLE = "user_id,display_name\n" + ROWS
NAMES = [("EMP-1", "Ana Sample"), ("EMP-2", None), ("EMP-3", "Åsa Øst")]
SPREADSHEETS = {
    "short rows": TABLE.replace("EMP-2,", "EMP-2"),
    "short rows of a wide table": "user_id,display_name,flag,sites\n" + ROWS,
    "rows of separators": TABLE.replace("EMP-2", ",\n,,,,,\n , \nEMP-2") + ",,,\n,",
    "surplus empty cells": TABLE.replace("Sample", "Sample,,,"),
    "emptied header columns": "user_id,display_name,,\nEMP-1,Ana Sample,,\nEMP-2,,,\nEMP-3,Åsa Øst,,\n",
    "an emptied column between": "user_id,,display_name\nEMP-1,,Ana Sample\nEMP-2\nEMP-3,,Åsa Øst\n",
    "a separator line": "sep=;\r\n" + TABLE.replace(",", ";"),
    "a quoted separator line": '"SEP=|"\n' + TABLE.replace(",", "|"),
    "a separator line for tabs": "sep=\t\n" + TABLE.replace(",", "\t"),
    "a separator line that names tabs": "SEP = \\t\n" + TABLE.replace(",", "\t"),
    "a separator line in a row of cells": "sep=;,,,\n" + TABLE,
    "a separator line with separators": "sep=;;;\n" + TABLE.replace(",", ";"),
    "a separator line of another table": "sep=,\n" + TABLE.replace(",", ";"),
    "rows of separators above the header": ",,,\n;;\n" + TABLE,
    "blanks before quotation marks": TABLE.replace(",display_name", ', "display_name"').replace(
        "Ana Sample", ' "Ana Sample"'
    ),
    "names over two lines of other programs": TABLE.replace("Ana Sample", "Ana\vSample").replace(
        "Åsa Øst", "Åsa\u2028Øst"
    ),
    "tabs": TABLE.replace(",", "\t"),
    "bars": TABLE.replace(",", "|"),
    "a capital header": TABLE.replace("user_id,display_name", "USER_ID,Display_Name"),
    "a spaced header": TABLE.replace("user_id,display_name", " User ID , display name"),
    "a joined header": TABLE.replace("user_id,display_name", "UserId,displayName"),
    "a quoted header": TABLE.replace("user_id,display_name", '"User-ID","Display Name"'),
    "a header over two lines": TABLE.replace("user_id,display_name", '"User\nID","Display\r\nName"'),
    "names over two lines": TABLE.replace("Ana Sample", '"Ana\nSample"'),
    "names over two lines of Windows": TABLE.replace("Ana Sample", '"Ana \r\nSample\r\n"'),
    "CR line ends": TABLE.replace("\n", "\r"),
    "CR LF line ends": TABLE.replace("\n", "\r\n"),
    "no last line end": TABLE.rstrip("\n"),
    "empty lines above the header": "\n\n  \n" + TABLE,
    "cells with spaces of all kinds": TABLE.replace("EMP-1,", "\u00a0EMP-1\u200b ,\u3000"),
    "everything quoted": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in TABLE.splitlines()
    ),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("form", SPREADSHEETS)
def test_a_table_of_a_spreadsheet_loses_no_row(tmp_path: Path, form: str, encoding: str) -> None:
    """Programs leave out, add and rename what a person does not see."""
    found = entries(table(tmp_path, SPREADSHEETS[form].encode(encoding)))
    assert refusals(found) == []
    assert [(row["user_id"], row.get("display_name")) for row in documents(found)] == NAMES


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_names_of_any_letters_leave_the_encoding_as_it_is(tmp_path: Path, encoding: str) -> None:
    """The header tells UTF-16 without a mark, also if no name has a Latin letter."""
    name = "Иван Петрович Сидоров"
    found = entries(table(tmp_path, f"user_id,display_name\nEMP-1,{name * 5}\n".encode(encoding)))
    assert [row["display_name"] for row in documents(found)] == [name * 5]


@pytest.mark.parametrize("name", ["people.CSV", "people.tsv", "people.TAB", "people.txt"])
def test_a_table_may_have_any_ending_of_tables(tmp_path: Path, name: str) -> None:
    """A spreadsheet saves "Unicode text" as .txt."""
    table(tmp_path, TABLE.replace(",", "\t").encode("utf-16")).rename(tmp_path / name)
    assert [row["user_id"] for row in documents(entries(tmp_path / name))] == ["EMP-1", "EMP-2", "EMP-3"]


def test_a_value_in_a_column_without_a_name_is_refused(tmp_path: Path) -> None:
    """The refusal names the file, the row and the column."""
    (refusal,) = refusals(entries(table(tmp_path, "user_id,,flag\nEMP-1,vip,\n")))
    assert refusal.where == "people.csv:2"
    assert refusal.detail == "cell 2 has a value, but column 2 has no name in the header"


def test_rows_below_a_cell_of_two_lines_keep_their_numbers(tmp_path: Path) -> None:
    """A row is numbered by its first line in the file."""
    found = entries(table(tmp_path, 'user_id,display_name\nEMP-1,"A\nB\nC"\n,x\nEMP-2,"D\nE"\n,x\n'))
    assert [refusal.where for refusal in refusals(found)] == ["people.csv:5", "people.csv:8"]
    assert [row["display_name"] for row in documents(found)] == ["A B C", "D E"]


def test_a_mark_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    """The rows below are read, also those with quotation marks."""
    rows = [f'EMP-{n},"Sample, {n}"' for n in range(2, 60)]
    found = entries(table(tmp_path, "\n".join(["user_id,display_name", 'EMP-1,"Sample', *rows])))
    assert [refusal.where for refusal in refusals(found)] == ["people.csv:2"]
    assert [row["user_id"] for row in documents(found)] == [f"EMP-{n}" for n in range(2, 60)]


def test_a_table_of_open_marks_takes_time_for_its_length_only(tmp_path: Path) -> None:
    """Each row is refused by itself."""
    found = entries(table(tmp_path, "user_id,flag\n" + 'EMP-1,"\n' * 2_001))
    assert len(refusals(found)) + len(documents(found)) >= 1_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_json_lines_of_a_windows_shell_are_read(encoding: str) -> None:
    """A redirection there writes UTF-16."""
    found = lines('{"user_id":"EMP-1","display_name":"Åsa"}\r\n{"user_id":"EMP-2"}\r\n'.encode(encoding))
    assert documents(found) == [{"user_id": "EMP-1", "display_name": "Åsa"}, {"user_id": "EMP-2"}]


def test_a_cut_character_of_utf_16_is_refused(tmp_path: Path) -> None:
    """The row with the cut is named, the others are read."""
    found = entries(table(tmp_path, TABLE.encode("utf-16")[:-3]))
    assert [refusal.where for refusal in refusals(found)] == ["people.csv:4"]
    assert [row["user_id"] for row in documents(found)] == ["EMP-1", "EMP-2"]


@pytest.mark.parametrize("cell", ['"lobby;gate"', '"lobby, gate"', "lobby|gate", '"lobby\ngate"'])
def test_sites_of_a_cell_may_be_separated_in_any_way(tmp_path: Path, cell: str) -> None:
    (document,) = documents(entries(table(tmp_path, f"user_id,sites\nEMP-1,{cell}\n")))
    assert document["sites"] == ["lobby", "gate"]


def test_an_empty_cell_is_left_out(tmp_path: Path) -> None:
    """The registry keeps its value for a field that is left out."""
    assert documents(entries(table(tmp_path, "user_id,flag,photo,npy\nEMP-1,,,\n"))) == [{"user_id": "EMP-1"}]


@pytest.mark.parametrize(
    "header",
    [
        "name,flag",
        "user_id,salary",
        "user_id,user_id",
        "flag",
        "",
        "\0",
        '"user_id',
        "\ufffe",
        "user_id\tsalary",
        "user_id,User ID",
        "sep=;",
        'sep="\nuser_id,flag',
        "sep=;\nuser_id,salary",
    ],
)
def test_a_header_with_other_columns_ends_the_run(tmp_path: Path, header: str) -> None:
    """The sentence lists the columns, and nothing is sent."""
    with pytest.raises(CannotRunError, match="first line") as caught:
        entries(table(tmp_path, f"{header}\nEMP-1,1\n"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (b"EMP-2,vip,more", "3 cells, the header 2"),
        (b"EMP-2,vip,,more,", "5 cells, the header 2"),
        (b'EMP-2,"vip', "quotation mark"),
        (b'EMP-2,"vip" or so', "quotation mark"),
        (b"EMP-2,v\xe9p", "not UTF-8"),
        (b"EMP-2,v\x00p", "NUL"),
        (b",vip", "no user id"),
        (b"E" * 1_000_000 + b",vip", "is too long"),
        (b"E" * 2_000_000 + b",vip", "more than"),
    ],
)
def test_a_bad_row_is_refused_alone(tmp_path: Path, row: bytes, sentence: str) -> None:
    """The refusal has the number of the line."""
    found = entries(table(tmp_path, b"user_id,flag\nEMP-1,vip\n" + row + b"\nEMP-3,vip\n"))
    (refusal,) = refusals(found)
    assert refusal.where == "people.csv:3"
    assert sentence in refusal.detail
    assert [match.user_id for match in candidates(found)] == ["EMP-1", "EMP-3"]


def test_paths_in_a_row_are_relative_to_the_table(tmp_path: Path) -> None:
    """The photo is sent, and the vector is read."""
    (tmp_path / "gait_db").mkdir()
    np.save(tmp_path / "gait_db" / "x.npy", vector())
    (found,) = entries(table(tmp_path, "user_id,photo,npy\nEMP-1,pictures\\1.jpg,gait_db/x.npy\n"))
    assert found.candidate
    assert found.candidate.photos == (PhotoFile(tmp_path / "pictures/1.jpg", tmp_path),)
    (template,) = json.loads(found.candidate.body)["templates"]
    assert template["modality"] == "gait"
    assert from_base64(template["vector"]) == normalise(vector(), 8)


@pytest.mark.parametrize(
    "path", ["../secret.npy", "/etc/passwd", "link.npy", "inside/secret.npy", "loop.npy", "a\tb"]
)
def test_a_row_cannot_name_a_file_outside_the_folder(tmp_path: Path, path: str) -> None:
    """Neither a path nor a link leads outside."""
    folder = tmp_path / "import"
    folder.mkdir()
    np.save(tmp_path / "secret.npy", vector())
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "inside").symlink_to(tmp_path)
    (folder / "loop.npy").symlink_to(folder / "loop.npy")
    found = entries(table(folder, f"user_id,npy\nEMP-1,{path}\n"), space=SPACE)
    assert candidates(found) == []
    assert refusals(found)[0].code == "file-invalid"


# Folders


def test_a_folder_has_identities_as_folders_and_as_files(tmp_path: Path) -> None:
    """Files of one name belong to one identity; hidden files are ignored."""
    (tmp_path / "EMP-1").mkdir()
    (tmp_path / "EMP-1" / "b.jpg").write_bytes(JPEG)
    (tmp_path / "EMP-1" / "a.PNG").write_bytes(JPEG)
    np.save(tmp_path / "EMP-1" / "v.npy", vector(1))
    np.save(tmp_path / "EMP-1.npy", vector(2))
    (tmp_path / "EMP.2.jpeg").write_bytes(JPEG)
    (tmp_path / ".DS_Store").write_bytes(b"")
    found = entries(tmp_path, ["lobby"], SPACE)
    first, second = candidates(found)
    assert (first.user_id, second.user_id) == ("EMP-1", "EMP.2")
    assert [photo.file.name for photo in first.photos] == ["a.PNG", "b.jpg"]
    assert json.loads(first.body)["sites"] == ["lobby"]
    assert [template["space"] for template in json.loads(first.body)["templates"]] == [SPACE, SPACE]
    assert refusals(found) == []
    assert open_source(str(tmp_path), [], NpySpaces()).total == 2


@pytest.mark.parametrize("inside", [True, False])
def test_folders_of_a_device_give_the_modality(tmp_path: Path, inside: bool) -> None:
    """The source is one of the three folders or their parent."""
    for folder in ("face_db", "gait_db"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "EMP-1.npy", vector())
    (document,) = documents(entries(tmp_path / "gait_db" if inside else tmp_path))
    assert [template["modality"] for template in document["templates"]] == (
        ["gait"] if inside else ["face", "gait"]
    )


def pickled(file: Path) -> None:
    np.save(file, np.array([{}]), allow_pickle=True)


BAD_FILES = {
    "an array of doubles": (lambda file: np.save(file, vector().astype(np.float64)), "float64"),
    "a matrix": (lambda file: np.save(file, np.zeros((2, 8), np.float32)), "shape"),
    "a scalar": (lambda file: np.save(file, np.float32(1)), "shape"),
    "pickled objects": (pickled, "pickled"),
    "NaN": (lambda file: np.save(file, vector() * np.float32("nan")), "NaN"),
    "zeros": (lambda file: np.save(file, np.zeros(8, np.float32)), "zero vector"),
    "nothing": (lambda file: file.write_bytes(b""), "no .npy file"),
    "junk": (lambda file: file.write_bytes(os.urandom(500)), "no .npy file"),
    "a beginning": (lambda file: file.write_bytes(b"\x93NUMPY\x01\x00"), "no .npy file"),
    "too much": (lambda file: file.write_bytes(b"\0" * 100_000), "more than"),
    "a pipe": (os.mkfifo, "regular"),
    "a folder": (Path.mkdir, "cannot be read|regular|neither"),
    "a link": (lambda file: file.symlink_to("/etc/hostname"), "link"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_and_the_identity_keeps_its_other_files(tmp_path: Path, name: str) -> None:
    """Nothing is unpickled, no link is followed and no pipe blocks."""
    make, sentence = BAD_FILES[name]
    (tmp_path / "EMP-1").mkdir()
    np.save(tmp_path / "EMP-1" / "good.npy", vector())
    make(tmp_path / "EMP-1" / "bad.npy")
    found = entries(tmp_path, space=SPACE)
    (refusal,) = refusals(found)
    assert (refusal.where, refusal.user_id, refusal.code) == ("EMP-1/bad.npy", "EMP-1", "file-invalid")
    assert any(part in refusal.detail for part in sentence.split("|"))
    (document,) = documents(found)
    assert len(document["templates"]) == 1


def test_a_npy_header_of_terabytes_allocates_nothing(tmp_path: Path) -> None:
    """The shape is compared with the size of the file."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4096), }".ljust(117) + b"\n"
    (tmp_path / "EMP-1.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    (tmp_path / "EMP-2.npy").write_bytes(
        (tmp_path / "EMP-1.npy").read_bytes().replace(b"(1, 4096)", b"(10**13,)")
    )
    assert len(refusals(entries(tmp_path, space=SPACE))) == 2


def test_unusable_entries_of_a_folder_are_refused(tmp_path: Path) -> None:
    """Bad names, links, empty folders, other files and vectors without a space."""
    (tmp_path / "BAD\x1b[2J").mkdir()
    (tmp_path / "EMP-1").symlink_to("/etc")
    (tmp_path / "EMP-2").mkdir()
    (tmp_path / "EMP-3").mkdir()
    (tmp_path / "EMP-3" / "notes.txt").write_text("x")
    np.save(tmp_path / "EMP-4.npy", vector())
    found = entries(tmp_path)
    details = {refusal.where: refusal.detail for refusal in refusals(found)}
    assert candidates(found) == []
    assert "no user id" in details["BAD\x1b[2J"]
    assert "link" in details["EMP-1"]
    assert "neither a photo nor a vector" in details["EMP-2"]
    assert "neither a photo" in details["EMP-3/notes.txt"]
    assert "--space" in details["EMP-4.npy"]


def test_vectors_above_the_limit_are_refused_one_by_one(tmp_path: Path) -> None:
    """64 vectors are read, so memory stays bounded."""
    (tmp_path / "EMP-1").mkdir()
    for n in range(66):
        np.save(tmp_path / "EMP-1" / f"{n:02}.npy", vector(n))
    found = entries(tmp_path, space=SPACE)
    assert len(documents(found)[0]["templates"]) == 64
    assert [refusal.where for refusal in refusals(found)] == ["EMP-1/64.npy", "EMP-1/65.npy"]


# Photos


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"GIF89a", "GIF file"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC picture, as phones store it: export it as JPEG"),
        (b"hello", "no picture"),
        (b"", "empty"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_photo_is_not_sent(tmp_path: Path, data: bytes | None, sentence: str) -> None:
    """The first bytes decide, not the name."""
    if data is not None:
        (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(FileRefusedError, match=sentence):
        read_photo(PhotoFile(tmp_path / "a.jpg", tmp_path))


def test_a_folder_takes_photos_by_their_content(tmp_path: Path) -> None:
    """Endings in any case are no part of the id; other files are refused as before."""
    webp = b"RIFF\x10\0\0\0WEBPVP8 picture"
    (tmp_path / "EMP-5").mkdir()
    files = {
        "EMP-1.jfif": JPEG,
        "EMP-2.JPE": JPEG,
        "EMP-3.JPG": JPEG,
        "EMP-4.webp": webp,
        "EMP-5/from-a-phone": JPEG,
        "EMP-5/scan.dat": JPEG,
        "EMP-5/notes.txt": b"hello",
        "EMP-6.HEIC": b"\0\0\0\x18ftypheic",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = entries(tmp_path)
    photos = {json.loads(one.body)["user_id"]: one.photos for one in candidates(found)}
    assert {user_id: len(files) for user_id, files in photos.items()} == {
        "EMP-1": 1,
        "EMP-2": 1,
        "EMP-3": 1,
        "EMP-4": 1,
        "EMP-5": 2,
        "EMP-6": 1,
    }
    assert read_photo(photos["EMP-1"][0]) == (JPEG, "image/jpeg")
    assert read_photo(photos["EMP-4"][0]) == (webp, "image/webp")
    assert [refusal.where for refusal in refusals(found)] == ["EMP-5/notes.txt"]
    with pytest.raises(FileRefusedError, match="export it as JPEG"):
        read_photo(photos["EMP-6"][0])


def test_a_photo_above_the_limit_is_not_read(tmp_path: Path) -> None:
    """Memory holds no more than the limit."""
    with (tmp_path / "a.jpg").open("wb") as out:
        out.truncate(MAX_PHOTO_BYTES + 1)
    with pytest.raises(FileRefusedError, match="more than"):
        read_photo(PhotoFile(tmp_path / "a.jpg", tmp_path))


# Sources


@pytest.mark.parametrize("name", ["missing.jsonl", "people.doc", "a\0b"])
def test_a_source_that_cannot_be_opened_ends_the_run(tmp_path: Path, name: str) -> None:
    """The error is one sentence."""
    (tmp_path / "people.doc").write_text("x")
    with pytest.raises(CannotRunError):
        entries(str(tmp_path / name))
