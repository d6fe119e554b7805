"""Test `wfm-fleet restore`."""

import pytest

from tests.integration.fleet.conftest import Api

STATUS = "/api/v1/sync/status"


def test_a_restore_begins_an_epoch(api: Api) -> None:
    """It says what happens and asks; the audit log has the key."""
    before = api.get(STATUS).json()
    refused = api.invoke("restore", stdin=b"n\n")
    assert (refused.exit_code, api.get(STATUS).json()) == (1, before)
    assert "every device drops what" in refused.output
    epochs = {before["epoch"]}
    for arguments, stdin in ((["restore"], b"y\n"), (["restore", "--yes"], None)):
        done = api.invoke(*arguments, stdin=stdin)
        now = api.get(STATUS).json()
        assert done.exit_code == 0, done.output
        assert f"epoch {now['epoch']} begins at version {now['version']}" in done.output
        assert now["version"] > before["version"]
        assert now["horizon"] == now["version"]
        epochs.add(now["epoch"])
    assert len(epochs) == 3
    entries = [
        item for item in api.get("/api/v1/audit").json()["items"] if item["what"] == "sync.epoch-begun"
    ]
    assert {item["subject"] for item in entries} == epochs - {before["epoch"]}
    assert {item["who"] for item in entries} == {"admin"}


@pytest.mark.parametrize("role", ["viewer", "operator", "source"])
def test_another_role_begins_no_epoch(api: Api, role: str) -> None:
    before = api.get(STATUS).json()
    refused = api.invoke("restore", "--yes", role=role)
    assert (refused.exit_code, "rejects this key" in refused.output) == (2, True)
    assert api.get(STATUS).json() == before
