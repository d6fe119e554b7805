"""`new-key`, `list-keys` and `revoke-key` manage API keys on the server itself."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from dashboard_api.__main__ import app
from deploy.local.stack import Mongod

BOOTSTRAP = "a-long-enough-bootstrap-key"
Run = Callable[..., Result]


@pytest.fixture
def run(mongod: Mongod, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs one command of the program."""
    env = {"MONGO__URI": mongod.uri, "MONGO__DATABASE": mongo_database, "API__BOOTSTRAP_KEY": BOOTSTRAP}
    for name, value in env.items():
        monkeypatch.setenv(f"WFM_{name}", value)

    def run_command(*command: str) -> Result:
        return CliRunner().invoke(app, list(command))

    return run_command


def rows(listed: Result) -> dict[str, list[str]]:
    """Return the cells of each listed key by its name."""
    assert listed.exit_code == 0, listed.output
    cells = [line.split() for line in listed.stdout.splitlines()[1:]]
    return {row[1]: row for row in cells}


def test_keys_are_listed_and_revoked_by_id(run: Run) -> None:
    """The list has no text of a key; a revoked key stays in it."""
    made = run("new-key", "wall", "--expires", "2199-01-31")
    assert made.exit_code == 0
    listed = rows(run("list-keys"))
    assert {name: row[2:5] for name, row in listed.items()} == {
        "bootstrap": ["admin", "-", "active"],
        "wall": ["viewer", "-", "active"],
    }
    assert "2199-01-31T00:00:00.000Z" in listed["wall"]
    assert made.stdout.strip() not in str(listed)
    assert run("revoke-key", listed["wall"][0]).exit_code == 0
    assert rows(run("list-keys"))["wall"][4] == "revoked"


def test_the_last_admin_key_is_revoked_only_by_force(run: Run) -> None:
    """The refusal names the flag; the configured key is not created again afterwards."""
    run("new-key", "wall")
    bootstrap_id = rows(run("list-keys"))["bootstrap"][0]
    refused = run("revoke-key", bootstrap_id)
    assert (refused.exit_code, "last-admin-key" in refused.stderr) == (2, True)
    assert "--force" in refused.stderr
    assert run("revoke-key", bootstrap_id, "--force").exit_code == 0
    run("new-key", "desk")
    assert [row[4] for row in rows(run("list-keys")).values() if row[2] == "admin"] == ["revoked"]


@pytest.mark.parametrize(
    "command",
    [
        ("revoke-key", "0000000000000000"),
        ("revoke-key",),
        ("revoke-key", "\udcff"),
        ("new-key", "x", "--expires", "2020-01-31"),
        ("new-key", "x", "--expires", "tomorrow"),
        ("new-key", ""),
        ("new-key", "a\nb"),
        ("new-key", "\udcff"),
        ("new-key", "x" * 101),
        ("new-key", "x", "--role", "edge"),
        ("new-key", "x", "--device", "cam-1"),
        ("new-key", "x", "--role", "edge", "--device", "cam-1"),
    ],
    ids=lambda command: ascii(" ".join(command))[:40],
)
def test_a_mistake_is_status_2_and_a_sentence(run: Run, command: tuple[str, ...]) -> None:
    """No key is created, and no traceback is shown."""
    result = run(*command)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.output
    assert set(rows(run("list-keys"))) <= {"bootstrap"}
