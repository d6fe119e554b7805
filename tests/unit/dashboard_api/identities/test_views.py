"""The pure parts of the API: what is shown, what is asked of the registry, what an error says."""

import json
from datetime import datetime, timezone

import pytest

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.devices.devices import AppliedVersion
from broker_bridge.registry.identities.model import Identity
from broker_bridge.registry.identities.template_notes import TemplateNote
from broker_bridge.registry.mongo.versions import History
from dashboard_api.devices.sync_routes import to_status
from dashboard_api.http import problems
from dashboard_api.http.paging import from_cursor, from_moment_cursor, to_cursor, to_moment_cursor
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import confirmations, sites_to_ask, to_patch, to_rows
from dashboard_api.identities.views import IdentityPatch

AT = datetime(2026, 1, 15, 10, 0, 0, 123_000, tzinfo=timezone.utc)


def person(version: int = 5, reach: tuple[str, ...] = ("lobby",)) -> Identity:
    return Identity("EMP-1", version, reach, reach, created_at=AT)


def applied(device_id: str, version: int | None, epoch: str | None = "e1") -> AppliedVersion:
    return AppliedVersion(device_id, "lobby", epoch, version, AT)


def test_only_this_history_at_or_past_the_version_confirms() -> None:
    """Older, another epoch, and never heard of: each still waits."""
    devices = [
        applied("cam-001", 5),
        applied("cam-002", 9),
        applied("cam-003", 4),
        applied("cam-004", 9, "e0"),
        applied("cam-005", None, None),
    ]
    said = confirmations(person(), History("e1", 9, 0), devices)
    assert said.confirmed == ["cam-001", "cam-002"]
    assert said.waiting == ["cam-003", "cam-004", "cam-005"]
    assert said.summary == "2 of 5 devices"


def test_who_ever_belonged_everywhere_is_asked_of_all_sites() -> None:
    """`reach` keeps the sites of before: those cameras must confirm a deletion too."""
    assert sites_to_ask(person(reach=("gate", "lobby"))) == ("gate", "lobby")
    assert sites_to_ask(person(reach=("*", "lobby"))) is None


def test_the_newest_template_of_a_modality_speaks_for_it() -> None:
    """Two face spaces side by side are one row."""
    notes = [
        TemplateNote("1", "face:old", 0.5, "a", AT),
        TemplateNote("2", "gait:x", None, None, AT),
        TemplateNote("3", "face:new", 0.5, "b", AT),
    ]
    rows = to_rows(person(), notes, {"face:old": 128, "face:new": 512, "gait:x": 256})
    assert [(row.modality, row.embedding_dim, row.source_node) for row in rows] == [
        ("face", 512, "b"),
        ("gait", 256, None),
    ]


def test_a_patch_tells_absent_from_null() -> None:
    """Absent leaves alone (None), null clears (empty)."""
    assert to_patch("EMP-1", IdentityPatch(), "tester").display_name is None
    cleared = to_patch("EMP-1", IdentityPatch(display_name=None, flag=None, sites=None), "tester")
    assert (cleared.display_name, cleared.flag, cleared.sites, cleared.must_exist) == ("", "", (), True)


def test_a_cursor_comes_back_as_it_went() -> None:
    """With one part or two, and with the millisecond that MongoDB keeps."""
    assert from_cursor(to_cursor("EMP-1"), 1) == ["EMP-1"]
    assert from_moment_cursor(to_moment_cursor(AT, "cam-001/EV1-1-abcd")) == (AT, "cam-001/EV1-1-abcd")
    assert from_cursor(None, 1) is None


@pytest.mark.parametrize("cursor", ["!", "é", "YQ", "gICA", "YQBi", "YQBiAGM", "x" * 511])
def test_a_cursor_of_somebody_elses_making_is_a_problem(cursor: str) -> None:
    """Not base64, not UTF-8, too few or too many parts, no time."""
    with pytest.raises(Problem) as refused:
        from_moment_cursor(cursor)
    assert (refused.value.status, refused.value.code) == (422, "cursor-invalid")


def test_a_device_is_up_to_date_with_its_own_site() -> None:
    """The registry's version may be further on by changes elsewhere."""
    status = to_status(History("e1", 9, 2), [applied("a", 5), applied("b", 4)], {"lobby": 5})
    assert [one.up_to_date for one in status.devices] == [True, False]
    assert (status.version, status.horizon, status.up_to_date, status.behind) == (9, 2, 1, 1)


@pytest.mark.parametrize(
    ("code", "status"),
    [("person-unknown", 404), ("site-mismatch", 409), ("vector-invalid", 422), ("new", 422)],
)
def test_a_broken_contract_keeps_its_code(code: str, status: int) -> None:
    """And has the status that fits it."""
    problem = problems.from_contract_error(ContractError(code, "why"))
    assert (problem.status, problem.code, problem.detail) == (status, code, "why")


def test_a_validation_error_names_fields_and_no_values() -> None:
    """Names of fields are cut, the list too; inputs are left out."""
    errors = [{"loc": ("body", "x" * 5000), "msg": "bad", "input": [0.123]}] * 50
    problem = problems.from_validation_errors(errors)
    assert "0.123" not in json.dumps(problem.more)
    assert len(problem.more["fields"]) == 20
    assert len(problem.detail) < 200
