"""Pure conversions of the API: views, patches, cursors, filters and problems."""

import json
from datetime import datetime, timezone

import pytest

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.devices.model import AppliedVersion
from broker_bridge.registry.identities.model import Identity
from broker_bridge.registry.identities.template_notes import TemplateNote
from broker_bridge.registry.mongo.versions import History
from dashboard_api.devices.conversions import to_sync_status
from dashboard_api.http import problems
from dashboard_api.http.paging import from_cursor, from_moment_cursor, to_cursor, to_moment_cursor
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import sites_to_confirm, to_confirmations, to_patch, to_rows
from dashboard_api.identities.views import IdentityPatch

AT = datetime(2026, 1, 15, 10, 0, 0, 123_000, tzinfo=timezone.utc)


def identity(version: int = 5, synced_sites: tuple[str, ...] = ("lobby",)) -> Identity:
    return Identity("EMP-1", version, synced_sites, synced_sites, created_at=AT)


def applied(device_id: str, version: int | None, epoch: str | None = "e1") -> AppliedVersion:
    return AppliedVersion(device_id, "lobby", epoch, version, AT)


def test_a_device_confirms_at_or_past_the_version_of_the_same_history() -> None:
    """A device that is behind, has another epoch or never reported still waits."""
    devices = [
        applied("cam-001", 5),
        applied("cam-002", 9),
        applied("cam-003", 4),
        applied("cam-004", 9, "e0"),
        applied("cam-005", None, None),
    ]
    view = to_confirmations(identity(), History("e1", 9, 0), devices)
    assert view.confirmed == ["cam-001", "cam-002"]
    assert view.waiting == ["cam-003", "cam-004", "cam-005"]
    assert view.summary == "2 of 5 devices"


def test_all_sites_that_ever_had_the_identity_confirm() -> None:
    """Former sites confirm a deletion too; every site means no filter."""
    assert sites_to_confirm(identity(synced_sites=("gate", "lobby"))) == ("gate", "lobby")
    assert sites_to_confirm(identity(synced_sites=("*", "lobby"))) is None


def test_a_row_describes_the_newest_template_of_its_modality() -> None:
    """Templates in two face spaces make one row."""
    notes = [
        TemplateNote("1", "face:old", 0.5, "a", AT),
        TemplateNote("2", "gait:x", None, None, AT),
        TemplateNote("3", "face:new", 0.5, "b", AT),
    ]
    rows = to_rows(identity(), notes, {"face:old": 128, "face:new": 512, "gait:x": 256})
    assert [(row.modality, row.embedding_dim, row.source_node) for row in rows] == [
        ("face", 512, "b"),
        ("gait", 256, None),
    ]


def test_a_patch_distinguishes_absent_from_null() -> None:
    """An absent field stays (None), a null field is cleared (empty)."""
    assert to_patch("EMP-1", IdentityPatch(), "tester").display_name is None
    cleared = to_patch("EMP-1", IdentityPatch(display_name=None, flag=None, sites=None), "tester")
    assert (cleared.display_name, cleared.flag, cleared.sites, cleared.must_exist) == ("", "", (), True)


def test_a_cursor_decodes_to_its_parts() -> None:
    """One part, or a time with milliseconds and a key."""
    assert from_cursor(to_cursor("EMP-1"), 1) == ["EMP-1"]
    assert from_moment_cursor(to_moment_cursor(AT, "cam-001/EV1-1-abcd")) == (AT, "cam-001/EV1-1-abcd")
    assert from_cursor(None, 1) is None


@pytest.mark.parametrize("cursor", ["!", "é", "YQ", "gICA", "YQBi", "YQBiAGM", "x" * 511])
def test_an_invalid_cursor_is_a_problem(cursor: str) -> None:
    """It is no base64, no UTF-8, has a wrong number of parts, or no time."""
    with pytest.raises(Problem) as refused:
        from_moment_cursor(cursor)
    assert (refused.value.status, refused.value.code) == (422, "cursor-invalid")


def test_a_device_is_up_to_date_with_its_own_site() -> None:
    """Changes at other sites may have advanced the version of the registry."""
    status = to_sync_status(History("e1", 9, 2), [applied("a", 5), applied("b", 4)], {"lobby": 5})
    assert [device.up_to_date for device in status.devices] == [True, False]
    assert (status.version, status.horizon, status.up_to_date, status.behind) == (9, 2, 1, 1)


@pytest.mark.parametrize(
    ("code", "status"),
    [("person-unknown", 404), ("site-mismatch", 409), ("vector-invalid", 422), ("new", 422)],
)
def test_a_contract_error_keeps_its_code(code: str, status: int) -> None:
    """The code decides the HTTP status."""
    problem = problems.from_contract_error(ContractError(code, "why"))
    assert (problem.status, problem.code, problem.detail) == (status, code, "why")


def test_a_validation_error_names_fields_and_no_values() -> None:
    """Long names and long lists are cut; inputs are left out."""
    errors = [{"loc": ("body", "x" * 5000), "msg": "bad", "input": [0.123]}] * 50
    problem = problems.from_validation_errors(errors)
    assert "0.123" not in json.dumps(problem.more)
    assert len(problem.more["fields"]) == 20
    assert len(problem.detail) < 200
