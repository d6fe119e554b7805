"""An engine and its record: written whole, checked when read, and the sentences for what does not fit."""

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


def test_what_is_written_is_read_again(engine):
    """The record lies beside the engine, readable for people, and nothing else is left there."""
    assert read_engine(engine) == (PLAN, record())
    assert record_path(engine).name == "model.engine.json"
    assert json.loads(record_path(engine).read_text())["built_at"] == "2026-01-15T12:00:00.000Z"
    assert {path.name for path in engine.parent.iterdir()} == {"model.engine", "model.engine.json"}


def test_an_engine_without_a_record_says_how_to_build_one(engine):
    """Nobody can know which model it is."""
    record_path(engine).unlink()
    with pytest.raises(ModelError, match=r"model\.engine\.json is missing.*wfm-device build-engine"):
        read_engine(engine)


@pytest.mark.parametrize("content", [b"", PLAN[:-1], PLAN[:-1] + b"!", PLAN + b"x"])
def test_a_truncated_or_changed_engine_is_refused(engine, content):
    """TensorRT would crash on some of these."""
    engine.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.engine \(\d+ bytes\) is truncated or not the one"):
        read_engine(engine)


def test_a_missing_engine_is_refused(tmp_path):
    """In a sentence that names it."""
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
def test_a_record_that_is_not_one_is_refused(engine, change):
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
    """Truncated or something else."""
    record_path(engine).write_text(text)
    with pytest.raises(ModelError, match="is not the record of an engine"):
        read_record(engine)


def test_an_engine_keeps_its_place_when_a_new_one_cannot_be_written(engine, monkeypatch):
    """Each file is replaced at once or not at all, and no draft stays."""

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match=r"model\.engine cannot be written: No space left"):
        write_engine(engine, memoryview(b"new"), record(engine_sha256=hashlib.sha256(b"new").hexdigest()))
    assert read_engine(engine) == (PLAN, record())
    assert len(list(engine.parent.iterdir())) == 2


def test_a_build_that_ends_between_the_two_files_is_noticed(engine):
    """A new engine beside an old record is not taken for the old model."""
    engine.write_bytes(b"new engine")
    with pytest.raises(ModelError, match="not the one of its record"):
        read_engine(engine)


def test_an_engine_is_named_so_that_it_is_opened_as_one(tmp_path):
    """By its ending."""
    with pytest.raises(ModelError, match=r"model\.onnx is not the name of an engine"):
        write_engine(tmp_path / "model.onnx", memoryview(PLAN), record())


@pytest.mark.parametrize(
    ("tensorrt", "gpu", "said", "expected"),
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
def test_an_engine_that_does_not_load_says_why(tmp_path, tensorrt, gpu, said, expected):
    """The version first, then the GPU, then TensorRT's own word; and what to do."""
    sentence = explain_load_failure(tmp_path / "m.engine", record(), tensorrt, gpu, said)
    assert expected in sentence
    assert sentence.endswith("build it here with `wfm-device build-engine model.onnx model.engine`")
