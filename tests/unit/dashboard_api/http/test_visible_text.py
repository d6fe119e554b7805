"""Texts that a reader sees whole."""

import pytest
from pydantic import TypeAdapter, ValidationError

from dashboard_api.external.views import ExternalId
from dashboard_api.training.views import Sentence

HIDDEN = "\x00\x1f\x7f\x85\u00ad\u061c\u200b\u202e\u2028\u2029\u2066\ufeff\ufff9\ufffe\U000e0041"


@pytest.mark.parametrize("letter", HIDDEN)
@pytest.mark.parametrize("text_type", [ExternalId, Sentence])
def test_an_invisible_character_is_refused(text_type: object, letter: str) -> None:
    """Controls, formats that hide or turn text round, separators of lines, and tags."""
    with pytest.raises(ValidationError):
        TypeAdapter(text_type).validate_python(f"a{letter}b")


@pytest.mark.parametrize("text", ["a b", "Zoë", "日本", "😀", "نص", "\ue000"])
def test_any_other_text_is_taken(text: str) -> None:
    """Letters of every script, and characters that a later Unicode may have."""
    assert TypeAdapter(ExternalId).validate_python(text) == text
    assert TypeAdapter(Sentence).validate_python(text) == text
