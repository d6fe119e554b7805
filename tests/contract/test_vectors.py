"""Check the encoding of vectors: unit length, little-endian float32, base64."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker_bridge.contract.embeddings import (
    MAX_DIMENSION,
    EmbeddingSpace,
    check_vector,
    from_base64,
    normalise,
    to_array,
    to_base64,
)
from broker_bridge.contract.errors import VECTOR_INVALID, ContractError
from broker_bridge.contract.messages import WireTemplate

NAN, INF = float("nan"), float("inf")
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0, 0.0],
        [1e-9, 0.0, 0.0],
        [NAN, 1.0, 0.0],
        [INF, 1.0, 0.0],
        [-INF, INF, 0.0],
        [1.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
        [],
        [[1.0, 0.0, 0.0]],
        [[1.0], [0.0], [0.0]],
        [1.0, [2.0], 3.0],
        ["one", "two", "three"],
        [None, 1.0, 0.0],
        [10**400, 1, 0],
        1.0,
    ],
    ids=str,
)
def test_an_invalid_vector_is_rejected(values: list[float]) -> None:
    """Zero, NaN, infinity, other lengths or shapes and other types are rejected."""
    with pytest.raises(ContractError) as caught:
        normalise(values, 3)
    assert caught.value.code == VECTOR_INVALID


@given(values=st.lists(finite, min_size=1, max_size=16).filter(lambda v: max(map(abs, v)) >= 1e-6))
def test_a_vector_gets_unit_length_and_keeps_its_direction(values: list[float]) -> None:
    """The largest float64 numbers overflow nothing and give no NaN."""
    vector = normalise(values, len(values))
    check_vector(vector, len(values))
    scaled = np.array(values) / max(map(abs, values))
    expected = scaled / np.linalg.norm(scaled)
    np.testing.assert_allclose(to_array(vector), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e30, 1e300, 1.7e308])
def test_the_scale_of_a_vector_does_not_change_its_bytes(scale: float) -> None:
    """Vectors of all lengths have the same bytes, so the same digest."""
    assert normalise([0.75 * scale, -scale], 2) == struct.pack("<2f", 0.6, -0.8)


def test_normalising_again_hardly_changes_anything() -> None:
    """A normalised vector normalises to itself, within the rounding of float32."""
    once = normalise(np.random.default_rng(1).normal(size=512), 512)
    np.testing.assert_allclose(to_array(normalise(to_array(once), 512)), to_array(once), atol=1e-7)


def test_the_wire_form_is_base64_of_little_endian_float32() -> None:
    """The wire form is fixed byte for byte, for firmware in other languages."""
    vector = normalise([0.5, 0.5, 0.5, 0.5], 4)
    assert vector == bytes.fromhex("0000003f" * 4)
    assert to_base64(vector) == "AAAAPwAAAD8AAAA/AAAAPw=="
    assert from_base64("AAAAPwAAAD8AAAA/AAAAPw==") == vector


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAAA",
        "AAAAPw=",
        "AAAAPw==\n",
        "AAA\u0410Pw==",
        "-_-_Pw==",
        "gASVAA==AAAA",
        "A" * 4 * MAX_DIMENSION * 2,
    ],
    ids=["empty", "3 bytes", "padding", "newline", "look-alike", "url-safe", "in the middle", "too long"],
)
def test_text_that_is_not_base64_of_float32_is_rejected(text: str) -> None:
    """Short, long and misspelt vectors have the same code."""
    with pytest.raises(ContractError) as caught:
        from_base64(text)
    assert caught.value.code == VECTOR_INVALID


@pytest.mark.parametrize("text", ["", "AAAA", "AAAAPw==A", "AAAAPw==\\n", "A" * 4 * MAX_DIMENSION * 2])
def test_a_message_with_a_wrong_vector_is_rejected_without_its_text(text: str) -> None:
    """Vectors in JSON have the limits of `from_base64`."""
    with pytest.raises(ValidationError, match="base64 of 1 to 4096 little-endian float32") as caught:
        WireTemplate.model_validate_json(f'{{"template_id":"t-1","space":"face:x","vector":"{text}"}}')
    assert "AAAA" not in caught.value.errors(include_input=False)[0]["msg"]


def test_a_vector_in_json_becomes_its_bytes() -> None:
    """Both decoders give the same bytes."""
    text = "AAAAPwAAAD8AAAA/+/+/Pw=="
    template = WireTemplate.model_validate_json(f'{{"template_id":"t-1","space":"face:x","vector":"{text}"}}')
    assert template.vector == from_base64(text)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [[2.0, 0.0], [0.0, 0.0], [0.5, 0.5], [NAN, 1.0], [INF, 0.0], [3e38, 3e38], [1.0], [1.0, 0.0, 0.0]],
    ids=str,
)
def test_a_stored_vector_has_unit_length(values: list[float]) -> None:
    """A vector from a store or the wire is checked before use, without warnings."""
    with pytest.raises(ContractError) as caught:
        check_vector(struct.pack(f"<{len(values)}f", *values), 2)
    assert caught.value.code == VECTOR_INVALID


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_rejected_like_any_other() -> None:
    """A signalling NaN, which raises a processor flag, gives the same error."""
    with pytest.raises(ContractError, match=VECTOR_INVALID):
        check_vector(bytes.fromhex("0100807f") * 2, 2)


def test_the_array_of_a_stored_vector_cannot_be_written() -> None:
    """The array is a read-only view of the stored bytes."""
    with pytest.raises(ValueError, match="read-only"):
        to_array(normalise([1.0, 0.0], 2))[0] = 5.0


def test_a_space_names_its_modality_and_model() -> None:
    """A space id is `<modality>:<model>`."""
    space = EmbeddingSpace("face:arcface-w600k-r50", 512)
    assert (space.modality, space.model) == ("face", "arcface-w600k-r50")
