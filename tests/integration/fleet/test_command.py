"""`wfm-fleet identity import` and `export` work with a real API."""

import base64
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pymongo import MongoClient
from skimage.data import astronaut

from broker_bridge.contract.embeddings import normalise, to_base64
from deploy.local.stack import ROOT, Mongod
from tests.integration.fleet.conftest import FACE, KEYS, Api, Serve
from tests.waiting import wait_until

CTRL_C_ENABLED = """
import runpy, signal
# A test run in the background starts its children with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("fleet", run_name="__main__")
"""


def vector(n: int, dimension: int = 512) -> bytes:
    return normalise(np.random.default_rng(n).normal(size=dimension), dimension)


def identity(n: int, **more: Any) -> dict[str, Any]:
    template = {"space": FACE, "vector": to_base64(vector(n)), "quality": 0.5}
    return {"user_id": f"EMP-{n:05}", "templates": [template], **more}


def write_jsonl(file: Path, identities: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(identity) + "\n" for identity in identities))
    return file


def portrait() -> bytes:
    data: bytes = cv2.imencode(".jpg", np.ascontiguousarray(astronaut()[..., ::-1]))[1].tobytes()
    return data


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def read_sorted(file: Path) -> list[dict[str, Any]]:
    """Return the exported identities with their templates in a fixed order."""
    identities = read_jsonl(file)
    for identity in identities:
        identity["templates"].sort(key=lambda template: template["vector"])
    return identities


def test_an_export_recreates_the_identities_in_a_fresh_database(
    api: Api, serve: Serve, mongo_database: str, mongod: Mongod, tmp_path: Path
) -> None:
    """All fields and vectors are equal; a second import changes nothing."""
    identities = [identity(n, display_name=f"Sample Å {n}") for n in range(250)]
    identities[0]["templates"] += identity(1000)["templates"] + identity(1001)["templates"]
    identities[1] |= {
        "flag": "vip",
        "sites": ["gate", "lobby"],
        "consent": {"face": False},
        "kind": "visitor",
    }
    identities[2]["external"] = [{"source_system": "hr", "external_id": f"{n}"} for n in (1, 2)]
    source, first, second = (tmp_path / name for name in ("in.jsonl", "first.jsonl", "second.jsonl"))
    assert api.run("import", write_jsonl(source, identities)).exit_code == 0
    assert api.run("export", first).exit_code == 0
    database = f"{mongo_database}_fresh"
    try:
        fresh_api = serve(database)
        result = fresh_api.run("import", first)
        assert (result.exit_code, "created" in result.stderr) == (0, True)
        assert fresh_api.run("export", second).exit_code == 0
        before = fresh_api.dump()
        repeated = fresh_api.run("import", first)
        assert repeated.exit_code == 0
        assert fresh_api.dump() == before
    finally:
        client: MongoClient[dict[str, Any]]
        with MongoClient(mongod.uri) as client:
            client.drop_database(database)
    assert read_sorted(second) == read_sorted(first)
    vectors = {
        base64.b64decode(t["vector"]) for exported in read_sorted(second) for t in exported["templates"]
    }
    assert vectors == {vector(n) for n in (*range(250), 1000, 1001)}
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_a_dry_run_writes_nothing_and_predicts_the_refusals(api: Api, tmp_path: Path) -> None:
    """Every collection stays unchanged, and the refusals equal those of the run."""
    source = write_jsonl(tmp_path / "people.jsonl", [identity(1), identity(2), identity(3, flag="NO FLAG")])
    api.run("import", write_jsonl(tmp_path / "first.jsonl", [identity(1)]))
    before = api.dump()
    dry = api.run("import", source, "--dry-run", "--report", tmp_path / "dry")
    assert api.dump() == before
    real = api.run("import", source, "--report", tmp_path / "real")
    assert (dry.exit_code, real.exit_code) == (1, 1)
    assert "nothing was written" in dry.stderr
    assert read_jsonl(tmp_path / "dry") == read_jsonl(tmp_path / "real")
    assert [row.split()[-2] for row in table(dry)] == [row.split()[-2] for row in table(real)]


def table(result: Any) -> list[str]:
    return [line for line in result.stderr.splitlines() if "│" in line]


def test_each_refusal_is_reported_with_line_code_and_sentence(api: Api, tmp_path: Path) -> None:
    """Other identities are imported, and the status is 1."""
    api.run("import", write_jsonl(tmp_path / "first.jsonl", [identity(1, external=[key("1")])]))
    bad = tmp_path / "people.jsonl"
    other_space = [{"space": "face:other", "vector": to_base64(vector(3))}]
    short = [{"space": FACE, "vector": to_base64(vector(4, 8))}]
    write_jsonl(
        bad,
        [
            identity(2, external=[key("1")]),
            identity(3, templates=other_space),
            identity(4, templates=short),
            identity(5, photo="x"),
            {"user_id": "../EMP"},
            identity(6),
        ],
    )
    with bad.open("ab") as file:
        file.write(b"\xff\xfe\x00 junk\n" + b"x" * 2_000_000 + b"\n")
    result = api.run("import", bad, "--report", tmp_path / "report")
    reported = {line["where"]: (line["user_id"], line["code"]) for line in read_jsonl(tmp_path / "report")}
    assert result.exit_code == 1
    assert reported == {
        "people.jsonl:1": ("EMP-00002", "external-taken"),
        "people.jsonl:2": ("EMP-00003", "space-unknown"),
        "people.jsonl:3": ("EMP-00004", "vector-invalid"),
        "people.jsonl:4": ("EMP-00005", "request-invalid"),
        "people.jsonl:5": (None, "request-invalid"),
        "people.jsonl:7": (None, "request-invalid"),
        "people.jsonl:8": (None, "payload-too-large"),
    }
    assert "people.jsonl:2: there is no embedding space 'face:other'" in result.stderr
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o600
    user_ids = {item["user_id"] for item in api.get("/api/v1/identities").json()["items"]}
    assert user_ids == {"EMP-00001", "EMP-00006"}


def key(external_id: str) -> dict[str, str]:
    return {"source_system": "hr", "external_id": external_id}


def test_a_folder_of_photos_and_vectors_is_imported(api: Api, tmp_path: Path) -> None:
    """A photo without a face is refused; a second run changes nothing."""
    folder = tmp_path / "people"
    (folder / "EMP-1").mkdir(parents=True)
    (folder / "EMP-1" / "portrait.jpg").write_bytes(portrait())
    (folder / "EMP-1" / "wall.png").write_bytes(cv2.imencode(".png", np.zeros((300, 300, 3), np.uint8))[1])
    (folder / "face_db").mkdir()
    np.save(folder / "face_db" / "EMP-2.npy", np.frombuffer(vector(2), "<f4") * 3)
    dry = api.run("import", folder, "--dry-run")
    assert (dry.exit_code, api.get("/api/v1/identities").json()["items"]) == (0, [])
    first = api.run("import", folder, "--site", "lobby", "--report", tmp_path / "report")
    before = api.dump()
    repeated = api.run("import", folder, "--site", "lobby")
    assert (first.exit_code, repeated.exit_code) == (1, 1)
    (wall,) = read_jsonl(tmp_path / "report")
    assert (wall["where"], wall["user_id"], wall["code"]) == ("EMP-1/wall.png", "EMP-1", "photo-no-face")
    assert api.dump() == before
    items = {item["user_id"]: item for item in api.get("/api/v1/identities").json()["items"]}
    assert {name: (item["sites"], item["templates"]) for name, item in items.items()} == {
        name: (["lobby"], [{"space": FACE, "count": 1}]) for name in ("EMP-1", "EMP-2")
    }


def test_a_table_with_a_photo_is_imported(api: Api, tmp_path: Path) -> None:
    """The table is written as a spreadsheet writes it."""
    (tmp_path / "1.jpg").write_bytes(portrait())
    (tmp_path / "people.csv").write_text(
        "\ufeffuser_id;display_name;flag;photo\r\nEMP-1;Sample Å;vip;1.jpg\r\nEMP-2;;;2.jpg\r\n"
    )
    result = api.run("import", tmp_path / "people.csv", "--report", tmp_path / "report")
    assert result.exit_code == 1
    assert [(line["where"], line["code"]) for line in read_jsonl(tmp_path / "report")] == [
        ("2.jpg", "file-invalid")
    ]
    shown = api.get("/api/v1/identities/EMP-1").json()
    assert (shown["display_name"], shown["flag"], shown["templates"][0]["count"]) == ("Sample Å", "vip", 1)


def test_a_look_alike_is_imported_with_a_warning(api: Api, tmp_path: Path) -> None:
    """The warning is in the table and the report, and counts as no refusal."""
    twins = [identity(1), identity(1, user_id="EMP-99999")]
    result = api.run("import", write_jsonl(tmp_path / "in.jsonl", twins), "--report", tmp_path / "report")
    (warning,) = read_jsonl(tmp_path / "report")
    assert (result.exit_code, warning["refused"], warning["code"]) == (0, False, "look-alike")
    assert warning["detail"].startswith("looks like EMP-00001 (similarity 1.00")
    assert "warnings: look-alike" in result.stderr


def test_a_photo_of_a_look_alike_is_imported_with_a_warning(api: Api, tmp_path: Path) -> None:
    """A folder of photos drops no look-alike: the warning names the photo."""
    for user_id in ("EMP-1", "EMP-2"):
        (tmp_path / "people" / user_id).mkdir(parents=True)
        (tmp_path / "people" / user_id / "portrait.jpg").write_bytes(portrait())
    result = api.run("import", tmp_path / "people", "--report", tmp_path / "report")
    (warning,) = read_jsonl(tmp_path / "report")
    assert (result.exit_code, warning["refused"], warning["code"]) == (0, False, "look-alike")
    assert (warning["where"], warning["user_id"]) == ("EMP-2/portrait.jpg", "EMP-2")
    assert warning["detail"].startswith("looks like EMP-1 (similarity ")


def test_a_space_without_limits_is_told_once(api: Api, tmp_path: Path) -> None:
    """Two people of one face are no look-alikes there, since no search was made."""
    bare = [{"space": "face:bare-8", "vector": to_base64(vector(1, 8))}]
    assert api.put("/api/v1/spaces/face:bare-8", {"dimension": 8}).status_code == 201
    twins = [identity(n, templates=bare) for n in (1, 2)]
    result = api.run("import", write_jsonl(tmp_path / "in.jsonl", twins), "--report", tmp_path / "report")
    (warning,) = read_jsonl(tmp_path / "report")
    assert (result.exit_code, warning["refused"], warning["code"]) == (0, False, "not-compared")
    assert warning["detail"].startswith("face:bare-8 has no limits")


def test_lines_are_read_from_and_written_to_a_pipe(api: Api) -> None:
    """With `-`, standard output carries nothing but identities."""
    sent = json.dumps(identity(1)).encode()
    assert api.run("import", "-", stdin=sent).exit_code == 0
    result = api.run("export", "-")
    assert json.loads(result.stdout)["templates"][0]["vector"] == to_base64(vector(1))


def test_an_export_without_vectors_has_no_biometric_data(api: Api, tmp_path: Path) -> None:
    """The file contains no templates."""
    api.run("import", write_jsonl(tmp_path / "in.jsonl", [identity(1)]))
    assert api.run("export", "--no-vectors", tmp_path / "out.jsonl").exit_code == 0
    assert "templates" not in (tmp_path / "out.jsonl").read_text()


def test_one_identity_is_exported_in_full(api: Api, tmp_path: Path) -> None:
    """The document has the vectors, only its owner can read it, and the audit has it."""
    exported, other = identity(1, display_name="Ana Petrova"), identity(2)
    api.run("import", write_jsonl(tmp_path / "in.jsonl", [exported, other]))
    file = tmp_path / "person.json"
    result = api.run("export", "--person", exported["user_id"], file)
    assert (result.exit_code, result.output) == (0, "")
    document = json.loads(file.read_text())
    assert (document["user_id"], document["person"]["display_name"]) == (exported["user_id"], "Ana Petrova")
    assert [template["vector"] for template in document["templates"]] == [exported["templates"][0]["vector"]]
    assert other["user_id"] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    newest = api.get("/api/v1/audit").json()["items"][0]
    assert (newest["what"], newest["subject"]) == ("person.exported", exported["user_id"])


def test_an_export_of_an_unknown_identity_leaves_no_file(api: Api, tmp_path: Path) -> None:
    """The status is 2, with the API's sentence."""
    result = api.run("export", tmp_path / "person.json", "--person", "EMP-1")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "refuses (404)" in result.stderr


@pytest.mark.parametrize(
    ("role", "imports", "exports"), [("source", 0, 2), ("operator", 0, 0), ("viewer", 2, 2)]
)
def test_a_key_of_another_role_ends_the_command_with_one_sentence(
    api: Api, tmp_path: Path, role: str, imports: int, exports: int
) -> None:
    """The status is 2, and no file is left."""
    source = write_jsonl(tmp_path / "in.jsonl", [identity(1)])
    brought = api.run("import", source, role=role)
    taken = api.run("export", tmp_path / "out.jsonl", role=role)
    assert (brought.exit_code, taken.exit_code) == (imports, exports)
    assert (tmp_path / "out.jsonl").exists() == (exports == 0)
    assert len(list(tmp_path.iterdir())) == 1 + (exports == 0)
    for result in (brought, taken):
        assert ("rejects this key (403)" in result.stderr) == (result.exit_code == 2)
        assert KEYS[role] not in result.output


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["import", "missing.jsonl"], "no such file"),
        (["import", ".", "--space", "faces"], "modality"),
        (["import", ".", "--site", "Lobby!"], "site id"),
        (["export", "/nowhere/out.jsonl"], "cannot be written"),
        (["export", "-", "--person", "../EMP"], "user id"),
        (["import", ".", "--report", "/nowhere/report"], "cannot be written"),
    ],
)
def test_a_command_that_cannot_run_exits_with_status_2(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], sentence: str
) -> None:
    """The output is one sentence without a traceback."""
    monkeypatch.chdir(tmp_path)
    result = api.run(*args)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_missing_key_is_explained(tmp_path: Path) -> None:
    """The key comes from the environment or a file, so no process list shows it."""
    result = program("import", str(tmp_path), environment={})
    assert result.returncode == 2
    assert result.stderr.startswith("fleet.api_key: Field required")
    assert "WFM_FLEET__API_KEY" in result.stderr


@pytest.mark.parametrize(("answer", "status", "count"), [("n", 2, 0), ("y", 0, 1)])
def test_an_import_on_a_terminal_needs_consent(
    api: Api, tmp_path: Path, answer: str, status: int, count: int
) -> None:
    """`no` sends nothing; scripts and --yes need no answer."""
    try:
        ours, theirs = pty.openpty()
    except OSError:
        pytest.skip("this machine has no terminals to give: /dev/pts is not mounted")
    running = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fleet",
            "identity",
            "import",
            write_jsonl(tmp_path / "in.jsonl", [identity(1)]),
        ],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **api.environment()},
        stdin=theirs,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{answer}\n".encode())
    _, output = running.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert running.returncode == status, output
    assert f"into {api.url}?" in output
    assert len(api.get("/api/v1/identities").json()["items"]) == count


def test_settings_are_read_from_a_file(api: Api, tmp_path: Path) -> None:
    """`--config` works before and after the command."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"fleet": {"api_url": api.url, "api_key": KEYS["admin"]}}))
    result = program("export", "-", "--config", str(config), environment={})
    assert (result.returncode, result.stdout) == (0, "")


def program(*args: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet", "identity", *args],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "COLUMNS": "240", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_import_stopped_by_ctrl_c_is_continued_by_the_next_run(api: Api, tmp_path: Path) -> None:
    """After the second run every identity is imported once."""
    identities = [identity(n) for n in range(600)]
    running = subprocess.Popen(
        [sys.executable, "-c", CTRL_C_ENABLED, "identity", "import", "-"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **api.environment()},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stuck = threading.Timer(60, running.kill)
    stuck.start()
    try:
        assert running.stdin
        assert running.stderr
        # The lines fill more than one request: the first is sent, the second waits for more lines.
        running.stdin.write("".join(json.dumps(item) + "\n" for item in identities[:500]))
        running.stdin.flush()
        wait_until(lambda: api.get("/api/v1/identities?limit=1").json()["items"], "the first are in")
        running.send_signal(signal.SIGINT)
        output = running.stderr.read()
        assert running.wait(20) == 130
    finally:
        stuck.cancel()
        running.kill()
        running.wait()
    assert "stopped; " in output
    assert "run it again to continue" in output
    assert "Traceback" not in output
    result = api.run("import", write_jsonl(tmp_path / "all.jsonl", identities))
    assert result.exit_code == 0
    assert len(api.get("/api/v1/identities?limit=1000").json()["items"]) == 600
