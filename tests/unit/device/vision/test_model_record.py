"""Hold the records beside model files to their form."""

from pathlib import Path

import pytest

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from device.vision.inference.session import ModelError
from device.vision.model_record import built_in_model, read_record


def test_the_record_beside_the_built_in_model_is_that_of_the_contract() -> None:
    """What the bridge knows without the file, cameras read beside it."""
    assert read_record(built_in_model()) == DEFAULT_FACE_SPACE


def test_a_model_without_a_record_has_none(tmp_path: Path) -> None:
    """A foreign model may lie alone."""
    assert read_record(tmp_path / "arcface.onnx") is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the document"),
        (b"{}", "space"),
        (b"\xff", "the document"),
        (b'{"space": "face:x", "dimension": 0}', "dimension"),
        (b'{"space": "face:x", "dimension": 2, "limits": {}}', "limits.distance"),
        (b" " * 70_000, "more than"),
    ],
)
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    """The sentence names the file and the field."""
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(ModelError, match=sentence) as refused:
        read_record(tmp_path / "m.engine")
    assert str(tmp_path / "m.json") in str(refused.value)
