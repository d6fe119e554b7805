"""Texts that a person reads as one text become one text, or share a key."""

import unicodedata

import pytest

from broker_bridge.common.plain_text import comparison_key, normalise_text


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("before", ["", " ", "\t\n", "\u00a0", "\u3000", "\ufeff", "\u200b \u2060", "\x1f"])
@pytest.mark.parametrize("after", ["", "  ", "\r\n", "\u2009\u200d", "\u200e"])
def test_blanks_around_and_forms_of_letters_make_no_difference(form: str, before: str, after: str) -> None:
    text = unicodedata.normalize(form, "Å sa-Ñandú ắ 한국")
    assert normalise_text(before + text + after) == unicodedata.normalize("NFC", "Å sa-Ñandú ắ 한국")


def test_case_and_blanks_inside_stay() -> None:
    assert normalise_text("Ana  Maria MÜLLER") == "Ana  Maria MÜLLER"
    assert normalise_text("") == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("EMP-12345", "emp-12345"),
        ("EMP-12345", "EMP12345"),
        ("EMP-12345", "EMP_12345"),
        ("EMP-12345", "EMP 12345"),
        ("EMP-12345", "EMP\u00a012345"),
        ("EMP-12345", "EMP\u200b12345"),
        ("EMP-12345", "\uff25\uff2d\uff30-\uff11\uff12\uff13\uff14\uff15"),
        ("ali.ismail", "al\N{LATIN SMALL LETTER DOTLESS I}.\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}smail"),
        ("Åsa", "A\u030asa"),
        ("Åsa", "asa"),
        ("strasse", "straße"),
        ("ﬁnn", "finn"),
    ],
)
def test_ids_that_a_person_may_mistake_share_a_key(one: str, other: str) -> None:
    assert comparison_key(one) == comparison_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("EMP-1", "EMP-11"), ("EMP-12", "EMP-21"), ("ana", "anna"), ("a@b", "ab"), ("7", "07")]
)
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    assert comparison_key(one) != comparison_key(other)
