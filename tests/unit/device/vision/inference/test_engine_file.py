"""A TensorRT engine and its record: written whole, and checked when read."""

import hashlib
import json
from datetime import datetime, timezone

import pytest

from device.vision.inference.engine_file import (
    EngineRecord,
    Gpu,
    explain_load_failure,
    read_engine,
    read_record,
    record_path,
    write_engine,
)
from device.vision.inference.session import ModelError

PLAN = b"plan" * 1000


def record(**changes):
    values = {
        "onnx_sha256": "a" * 64,
        "onnx_name": "model.onnx",
        "tensorrt": "10.3.0",
        "gpu": "Orin",
        "compute_capability": "8.7",
        "fp16": True,
        "max_batch": 8,
        "built_at": datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc),
        "engine_sha256": hashlib.sha256(PLAN).hexdigest(),
    }
    return EngineRecord(**(values | changes))


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "model.engine"
    write_engine(path, memoryview(PLAN), record())
    return path


def test_an_engine_is_read_as_written(engine):
    """The record beside the engine is readable, and no other file stays."""
    assert read_engine(engine) == (PLAN, record())
    assert record_path(engine).name == "model.engine.json"
    assert json.loads(record_path(engine).read_text())["built_at"] == "2026-01-15T12:00:00.000Z"
    assert {path.name for path in engine.parent.iterdir()} == {"model.engine", "model.engine.json"}


def test_an_engine_without_a_record_names_the_build_command(engine):
    """The model of the engine is unknown."""
    record_path(engine).unlink()
    with pytest.raises(ModelError, match=r"model\.engine\.json is missing.*wfm-device build-engine"):
        read_engine(engine)


@pytest.mark.parametrize("content", [b"", PLAN[:-1], PLAN[:-1] + b"!", PLAN + b"x"])
def test_a_truncated_or_changed_engine_is_refused(engine, content):
    """TensorRT would crash on such files."""
    engine.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.engine \(\d+ bytes\) is truncated or not the one"):
        read_engine(engine)


def test_a_missing_engine_is_refused(tmp_path):
    """The sentence names the file."""
    with pytest.raises(ModelError, match=r"nowhere\.engine cannot be read: No such file"):
        read_engine(tmp_path / "nowhere.engine")


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "not a hash"},
        {"onnx_name": "../../etc/passwd"},
        {"max_batch": 0},
        {"fp16": "yes"},
        {"built_at": "yesterday"},
        {"engine_sha256": None},
    ],
)
def test_an_invalid_record_is_refused(engine, change):
    """The sentence names the field and not its value."""
    document = json.loads(record_path(engine).read_text())
    record_path(engine).write_text(json.dumps(document | change))
    with pytest.raises(
        ModelError, match=rf"is not the record of an engine \({next(iter(change))}: "
    ) as caught:
        read_record(engine)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_record_that_is_no_object_is_refused(engine, text):
    """The record is truncated or other JSON."""
    record_path(engine).write_text(text)
    with pytest.raises(ModelError, match="is not the record of an engine"):
        read_record(engine)


def test_a_failed_write_keeps_the_old_engine(engine, monkeypatch):
    """Each file is replaced whole, and no draft stays."""

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match=r"model\.engine cannot be written: No space left"):
        write_engine(engine, memoryview(b"new"), record(engine_sha256=hashlib.sha256(b"new").hexdigest()))
    assert read_engine(engine) == (PLAN, record())
    assert len(list(engine.parent.iterdir())) == 2


def test_a_build_that_ends_between_the_two_files_is_detected(engine):
    """A new engine with an old record is refused."""
    engine.write_bytes(b"new engine")
    with pytest.raises(ModelError, match="not the one of its record"):
        read_engine(engine)


def test_an_engine_needs_the_suffix_of_an_engine(tmp_path):
    """The suffix selects the runtime."""
    with pytest.raises(ModelError, match=r"model\.onnx is not the name of an engine"):
        write_engine(tmp_path / "model.onnx", memoryview(PLAN), record())


@pytest.mark.parametrize(
    ("tensorrt", "gpu", "message", "expected"),
    [
        ("10.7.0", Gpu("Orin", "8.7"), "tag", "it was built by TensorRT 10.3.0 and this is 10.7.0"),
        (
            "10.3.0",
            Gpu("Thor", "11.0"),
            "tag",
            "it was built for Orin (compute capability 8.7) and this is Thor (11.0)",
        ),
        ("10.3.0", Gpu("Orin", "8.7"), "Plugin not found", "Plugin not found"),
        ("10.3.0", Gpu("Orin", "8.7"), "", "it gave no reason"),
    ],
)
def test_an_engine_that_does_not_load_has_a_reason(tmp_path, tensorrt, gpu, message, expected):
    """The version comes first, then the GPU, then TensorRT's message, then the advice."""
    sentence = explain_load_failure(tmp_path / "m.engine", record(), tensorrt, gpu, message)
    assert expected in sentence
    assert sentence.endswith("build it here with `wfm-device build-engine model.onnx model.engine`")
