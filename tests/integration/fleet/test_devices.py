"""Test `wfm-fleet device`."""

import pytest

from tests.integration.fleet.conftest import Api


def test_a_device_is_moved_and_decommissioned(api: Api) -> None:
    """Each command asks first; `--yes` does not. An error has status 2."""
    missing = api.invoke("device", "decommission", "cam-001", "--yes")
    assert missing.exit_code == 2
    assert "there is no device cam-001" in missing.output
    assert api.invoke("device", "move", "cam-001", "gate", "--yes").exit_code == 2
    api.post("/api/v1/devices", {"device_id": "cam-001", "site_id": "lobby"})
    asked = api.invoke("device", "decommission", "cam-001", stdin=b"n\n")
    assert (asked.exit_code, api.get("/api/v1/devices/cam-001").json()["decommissioned_at"]) == (1, None)
    moved = api.invoke("device", "move", "cam-001", "gate", stdin=b"y\n")
    assert (moved.exit_code, api.get("/api/v1/devices/cam-001").json()["site_id"]) == (0, "gate")
    assert "WFM_DEVICE__SITE=gate" in moved.output
    for _ in range(2):
        assert api.invoke("device", "decommission", "cam-001", "--yes").exit_code == 0
    assert api.get("/api/v1/devices").json()["items"] == []


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_another_role_is_refused(api: Api, role: str) -> None:
    """The sentence names the refusal; the status is 2."""
    refused = api.invoke("device", "decommission", "cam-001", "--yes", role=role)
    assert (refused.exit_code, "rejects this key" in refused.output) == (2, True)


@pytest.mark.parametrize("wrong", ["", ".", "..", "a/b", "Cam-1", "cam-1\n", "\udcff"])
def test_a_mistyped_id_is_refused_before_a_request(api: Api, wrong: str) -> None:
    """A device and a site have ids of one form; the status is 2."""
    for arguments in (["decommission", wrong], ["move", wrong, "gate"], ["move", "cam-001", wrong]):
        refused = api.invoke("device", *arguments, "--yes")
        assert (refused.exit_code, "expected an id" in refused.output) == (2, True)
