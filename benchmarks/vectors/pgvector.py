"""Measure PostgreSQL with pgvector, IVFFlat lists=100, on the same queries.

A throw-away server on a unix socket, with all data in its memory; `psql` times each query, which takes its
face from a table, so that no text is parsed. Skipped where there is no PostgreSQL with pgvector: on PATH,
where Debian has it, or in the package `pgserver`.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import Latency, Note, Row

if TYPE_CHECKING:
    from .queries import Queries

PROBES = (1, 10)
"""Lists that a query looks into: pgvector's default, and the square root of their number."""
_LISTS = 100
_START_SECONDS = 30.0
_EXACT_QUERIES = 20
_TABLES = """CREATE EXTENSION vector;
CREATE TABLE detected_persons (global_id integer PRIMARY KEY, face_embedding vector(512));
CREATE TABLE faces (id integer PRIMARY KEY, face vector(512));"""
_INDEX = f"""CREATE INDEX ON detected_persons USING ivfflat (face_embedding vector_cosine_ops)
WITH (lists = {_LISTS}); ANALYZE;"""
_SELECT = """SELECT global_id, 1 - (face_embedding <=> {face}) AS similarity FROM detected_persons
ORDER BY {order} LIMIT 5;"""
_COPY = np.dtype(
    [
        ("fields", ">i2"),
        ("id_bytes", ">i4"),
        ("id", ">i4"),
        ("vector_bytes", ">i4"),
        ("dimension", ">i2"),
        ("unused", ">i2"),
        ("vector", ">f4", 512),
    ]
)

Course = tuple[NDArray[np.float32], "Queries", Latency]


def measure(courses: Mapping[int, Course]) -> list[Row | Note]:
    """Measure per size the build of the index, and searches beside exact numpy."""
    programs = _programs()
    if programs is None:
        return [Note("pgvector: not here; it needs PostgreSQL with pgvector, or `pip install pgserver`")]
    rows: list[Row | Note] = []
    for size, (matrix, queries, bare) in courses.items():
        with _server(programs) as psql:
            psql.run(_TABLES)
            psql.copy("detected_persons", matrix)
            psql.copy("faces", queries.vectors)
            began = time.perf_counter()
            psql.run("SET maintenance_work_mem = '1GB'; " + _INDEX)
            rows.append(
                Row(
                    f"pgvector: build IVFFlat of {size:,}",
                    Latency.from_seconds([time.perf_counter() - began]),
                )
            )
            rows += _searches(psql, size, queries, bare)
    return rows


def _searches(psql: "_Psql", size: int, queries: "Queries", bare: Latency) -> Iterator[Row]:
    for probes in PROBES:
        setup = f"SET ivfflat.probes = {probes}; SET enable_seqscan = off;"
        found, took = psql.search(setup, len(queries.rows), "face_embedding <=> {face}")
        recall = np.mean([one == row for one, row in zip(found, queries.rows, strict=True)])
        yield Row(
            f"pgvector IVFFlat among {size:,}, probes={probes}: recall@1 {recall:.3f}",
            Latency.from_seconds(took),
            bare=bare,
        )
    found, took = psql.search("", _EXACT_QUERIES, "similarity DESC")
    recall = np.mean([one == row for one, row in zip(found, queries.rows[:_EXACT_QUERIES], strict=True)])
    # An index serves the order of `<=>` alone: this one goes through the table.
    yield Row(
        f"pgvector ORDER BY similarity among {size:,}: recall@1 {recall:.3f}",
        Latency.from_seconds(took),
        bare=bare,
    )


@dataclass(frozen=True)
class _Psql:
    """Runs statements in the server at the socket in `folder`."""

    programs: Path
    folder: Path

    def run(self, script: str | bytes, *arguments: str) -> str:
        command = [str(self.programs / "psql"), "-h", str(self.folder), "-U", "bench", "-d", "postgres"]
        command += ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *arguments]
        data = script.encode() if isinstance(script, str) else script
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.decode().strip()[:500]}")
        return done.stdout.decode()

    def copy(self, table: str, vectors: NDArray[np.float32]) -> None:
        """Row i as (i, vector), in COPY's binary form."""
        rows = np.zeros(len(vectors), dtype=_COPY)
        rows["fields"], rows["id_bytes"], rows["id"] = 2, 4, np.arange(len(vectors))
        rows["vector_bytes"], rows["dimension"], rows["vector"] = 4 + 4 * 512, 512, vectors
        data = b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"
        self.run(data, "-c", f"COPY {table} FROM STDIN (FORMAT binary)")

    def search(self, setup: str, count: int, order: str) -> tuple[list[int], list[float]]:
        """Return the nearest person of the first `count` faces, and the seconds taken."""
        faces = [f"(SELECT face FROM faces WHERE id = {number})" for number in range(count)]
        selects = [_SELECT.format(face=face, order=order.format(face=face)) for face in faces]
        warm = "\n".join(selects[: count // 5])
        answers = self.run(f"{setup}\n{warm}\n\\echo begin\n\\timing on\n" + "\n".join(selects))
        groups = re.split(r"^Time: ([\d.]+) ms.*\n", answers.partition("begin\n")[2], flags=re.MULTILINE)
        nearest = [int(lines.partition("|")[0] or -1) for lines in groups[:-1:2]]
        return nearest, [float(milliseconds) / 1000 for milliseconds in groups[1::2]]


def _programs() -> Path | None:
    """Return the folder of PostgreSQL programs that have pgvector."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = find_spec("pgserver")
    if package is not None and package.origin:
        folders.append(Path(package.origin).parent / "pginstall" / "bin")
    return next((folder for folder in folders if _has_pgvector(folder)), None)


def _has_pgvector(folder: Path) -> bool:
    if not (folder / "pg_config").exists() or not (folder / "initdb").exists():
        return False
    asked = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=True)
    return Path(asked.stdout.strip(), "extension", "vector.control").exists()


@contextmanager
def _server(programs: Path) -> Iterator[_Psql]:
    with tempfile.TemporaryDirectory(prefix="wfm-bench-pg-") as name:
        folder, user = Path(name), None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
            account = pwd.getpwnam("nobody")
            user = account.pw_uid
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = str(folder / "data")
        initdb = [programs / "initdb", "-D", data, "-U", "bench", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, user=user, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        settings = ("listen_addresses=", "fsync=off", "shared_buffers=1GB", "max_wal_size=4GB", "jit=off")
        options = [part for setting in settings for part in ("-c", setting)]
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *options],
            user=user,
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_ready(programs, folder, server)
            yield _Psql(programs, folder)
        finally:
            server.terminate()
            server.wait()


def _wait_until_ready(programs: Path, folder: Path, server: "subprocess.Popen[bytes]") -> None:
    asking: Sequence[str | Path] = [
        programs / "pg_isready",
        "-q",
        "-h",
        folder,
        "-d",
        "postgres",
        "-U",
        "bench",
    ]
    deadline = time.monotonic() + _START_SECONDS
    while subprocess.run(asking, check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL from {programs} does not start")
        time.sleep(0.05)
