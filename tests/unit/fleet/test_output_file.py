"""The output of an export respects what its path names."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.local.stack import ROOT
from fleet.errors import CannotRunError
from fleet.output_file import open_output


def write(path: Path | str, data: bytes = b"vectors") -> None:
    with open_output(str(path)) as out:
        out.write(data)


def test_a_new_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b"vectors"
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("interruption", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file(tmp_path: Path, interruption: BaseException) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with open_output(str(path)) as out:
            out.write(b"half")
            raise interruption

    with pytest.raises(type(interruption)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_file_is_written(tmp_path: Path, depth: int, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.jsonl"
    if exists:
        target.write_bytes(b"old")
    link = target
    for n in range(depth):
        (tmp_path / f"link-{n}").symlink_to(link)
        link = tmp_path / f"link-{n}"
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"vectors"
    assert not target.is_symlink()
    assert [file.name for file in target.parent.iterdir()] == ["real.jsonl"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_named_pipe_is_written_through(tmp_path: Path, linked: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    name = tmp_path / "link"
    name.symlink_to(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write(name if linked else pipe)
    reader.join(60)
    assert received == [b"vectors"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "pipe"]


def test_an_open_descriptor_is_written_through() -> None:
    """A shell passes `>(gzip)` as /dev/fd/N."""
    read, written = os.pipe()
    write(f"/dev/fd/{written}")
    os.close(written)
    with os.fdopen(read, "rb") as file:
        assert file.read() == b"vectors"


@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_a_descriptor_of_a_file_is_appended_to(tmp_path: Path, form: str) -> None:
    """`export /dev/stdout >> all.jsonl` keeps what the file has."""
    path = tmp_path / "all.jsonl"
    path.write_bytes(b"old ")
    with path.open("ab") as out:
        write(form.format(out.fileno()))
    assert path.read_bytes() == b"old vectors"
    assert [file.name for file in tmp_path.iterdir()] == ["all.jsonl"]


def test_standard_output_by_name_is_written_through(tmp_path: Path) -> None:
    """The file that it leads to is not replaced."""
    path = tmp_path / "all.jsonl"
    path.write_bytes(b"old ")
    code = "from tests.unit.fleet.test_output_file import write; write('/dev/stdout')"
    with path.open("ab") as out:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, check=True)
    assert path.read_bytes() == b"old vectors"


def test_the_null_device_is_written_through() -> None:
    write(os.devnull)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/zero", "/dev/random"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_device_node_is_refused_and_stays(tmp_path: Path, device: str, linked: bool) -> None:
    name = Path(device)
    if linked:
        name = tmp_path / "link"
        name.symlink_to(device)
    with pytest.raises(CannotRunError, match=r"a device or a socket: name a file, or - for"):
        write(name)
    assert stat.S_ISCHR(Path(device).stat().st_mode)


def test_a_socket_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(CannotRunError, match="a device or a socket"):
            write(path)
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="is a folder: name a file in it"):
        write(tmp_path)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises((CannotRunError, OSError)):
        write(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("name", ["", "no-folder/", "out\0.jsonl"])
def test_what_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(CannotRunError, match="is no name of a file"):
        write(name)
