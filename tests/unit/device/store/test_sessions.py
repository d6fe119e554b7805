"""Test the ids of connections."""

import sqlite3
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from broker_bridge.contract.ids import Session
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from device.store.sessions import next_session

_SESSION: TypeAdapter[str] = TypeAdapter(Session)


@pytest.fixture
def db(tmp_path: Path) -> DatabaseManager:
    db = DatabaseManager(tmp_path / "device.db")
    db.initialize()
    return db


def test_sessions_rise_even_when_the_clock_jumps_back(db: DatabaseManager) -> None:
    """The order serves readers of logs; the backend compares ids only."""
    sessions = [next_session(db, seconds) for seconds in (1_900_000_000, 20, 0, -5, 1_900_000_050)]
    assert sessions == sorted(sessions, key=lambda session: int(session, 16))
    assert all(_SESSION.validate_python(session) for session in sessions)


def test_two_copies_of_a_disk_have_different_sessions(tmp_path: Path) -> None:
    """Also at the same second, with a clock in 1970."""
    first, second = DatabaseManager(tmp_path / "a.db"), DatabaseManager(tmp_path / "b.db")
    for db in (first, second):
        db.initialize()
        db.set_config("session", "10")
    assert next_session(first, 3) != next_session(second, 3)


@pytest.mark.parametrize("stored", ["", "no hex", "-1", "f" * 16, "f" * 40, "65000000"])
def test_a_stored_session_of_any_form_is_followed_by_a_valid_one(db: DatabaseManager, stored: str) -> None:
    """A flipped bit or older software must not keep the camera from connecting."""
    db.set_config("session", stored)
    assert _SESSION.validate_python(next_session(db, 1_900_000_000))
    assert _SESSION.validate_python(next_session(db, 1_900_000_000))


def test_a_full_disk_does_not_prevent_a_session(db: DatabaseManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random part alone distinguishes the next session then."""

    def fail(*_: object) -> None:
        raise StoreError("full") from sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(db, "set_config", fail)
    assert next_session(db, 1_900_000_000) != next_session(db, 1_900_000_000)
