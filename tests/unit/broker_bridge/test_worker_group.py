"""What the end of a worker means for the command that forked it."""

import signal

import pytest

from broker_bridge.worker_group import exit_status_of


@pytest.mark.parametrize(
    ("status", "stopping", "expected"),
    [
        (0, True, 0),
        (0, False, 0),
        (2, True, 2),
        (70, False, 70),
        (-signal.SIGTERM, True, 0),
        (-signal.SIGINT, True, 0),
        (-signal.SIGTERM, False, 1),
        (-signal.SIGKILL, True, 1),
        (-signal.SIGKILL, False, 1),
    ],
)
def test_only_a_worker_that_was_told_to_stop_may_end_by_a_signal(
    status: int, stopping: bool, expected: int
) -> None:
    """A stop during the start ends workers before they have handlers: no failure."""
    assert exit_status_of(status, stopping=stopping) == expected
