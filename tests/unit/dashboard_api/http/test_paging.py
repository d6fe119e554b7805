"""Every text of a cursor's documented form is a cursor, and no other."""

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard_api.http import paging
from dashboard_api.http.problems import Problem

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Times have milliseconds, as in MongoDB.
MOMENTS = st.integers(0, 95 * 10**12).map(lambda ms: EPOCH + timedelta(milliseconds=ms))


def pattern_of(cursor: Any) -> str:
    """Return the pattern that OpenAPI shows of a type of cursor."""
    pattern: str = cursor.__metadata__[0].json_schema_extra["pattern"]
    return pattern


@given(st.from_regex(pattern_of(paging.Cursor), fullmatch=True))
def test_every_text_of_the_form_is_a_cursor_of_a_list_by_id(text: str) -> None:
    """Also one that no list has given."""
    assert paging.from_cursor(text, 1) is not None


@given(st.from_regex(pattern_of(paging.MomentCursor), fullmatch=True))
def test_every_text_of_the_form_is_a_cursor_of_a_list_by_time(text: str) -> None:
    """Its time lies within the years that MongoDB and Python have."""
    assert paging.from_moment_cursor(text) is not None


@given(MOMENTS, st.text())
def test_a_cursor_keeps_time_and_key(at: datetime, key: str) -> None:
    """What was put in comes out."""
    if key.encode(errors="ignore").decode() == key:
        cursor = paging.to_moment_cursor(at, key)
        assert re.fullmatch(pattern_of(paging.MomentCursor), cursor)
        assert paging.from_moment_cursor(cursor) == (at, key)


@pytest.mark.parametrize("text", ["!", "YQ", "6", "6A", "-", "0x61", "٦١", "61\n", " 61"])
def test_another_text_is_a_problem(text: str) -> None:
    """Neither list takes it."""
    for read in (lambda: paging.from_cursor(text, 1), lambda: paging.from_moment_cursor(text)):
        with pytest.raises(Problem) as caught:
            read()
        assert caught.value.code == "cursor-invalid"
