"""Look up the faces of a video at the tracker, as if this device saw them now."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import Assignment
from device.management.health import Health
from device.mqtt.connection_loop import BrokerSession
from device.mqtt.link import SessionListener
from device.recognition.sighting import FrameReport

from .observations import ObservationSender

_CONNECT_SECONDS = 15.0
# The site's retained head names the model that the registry has on record.
_HEAD_SECONDS = 1.0
# Lookups end after one timeout; a bridge that is new to this device has much to load.
_ANSWER_SECONDS = 3.0
_STOP_SECONDS = 5.0
# A video may be read faster than it was taken, but the tracker takes faces within a tenth of a second for
# faces of one frame, hence of different persons.
_PICTURES_APART = timedelta(milliseconds=150)
# The tracker rejects clocks that are off by minutes, so reading a long video fast has to pause.
_MOST_AHEAD = timedelta(seconds=60)
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


class LiveTrackerLookup:
    """The lookup at the tracker over a session of its own.

    It sends observations and waits for the assignments. A context manager, for one thread. It starts and
    stops `session`. On the first problem (no broker, no assignment within three seconds, a model in
    quarantine) it calls `report_problem` with a sentence and looks nothing up any more.
    """

    def __init__(
        self,
        session: BrokerSession,
        observations: ObservationSender,
        health: Health,
        *,
        broker: str,
        report_problem: Callable[[str], None],
        utc_now: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._session = session
        self._observations = observations
        self._health = health
        self._broker = broker
        self._report_problem = report_problem
        self._utc_now = utc_now
        self._sleep = sleep
        self._attempt = _FirstAttempt()
        self._last = _LONG_AGO
        self._ended = False
        session.attach(observations)
        session.attach(self._attempt)

    def __enter__(self) -> "LiveTrackerLookup":
        if not self._is_quarantined():
            self._session.start()
            if not self._attempt.succeeded(_CONNECT_SECONDS):
                refused = self._session.counts["refused"] > 0
                why = "refuses this device, see section mqtt" if refused else "cannot be reached"
                self._give_up(f"the broker at {self._broker} {why}")
            else:
                self._attempt.await_head(_HEAD_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._session.stop(_STOP_SECONDS)

    def look_up(self, report: FrameReport, frame_size: tuple[int, int]) -> Mapping[str, Assignment]:
        """Return the assignments of the faces of `report`, by track id.

        `frame_size` is width and height in pixels. Waits for the tracks with a due observation, three
        seconds at most.
        """
        if self._ended or self._is_quarantined():
            return {}
        at = max(self._utc_now(), self._last + _PICTURES_APART)
        if at - self._utc_now() > _MOST_AHEAD:
            self._sleep(_PICTURES_APART.total_seconds())
        sent = self._observations.send_report(report, frame_size, at)
        if sent:
            self._last = at
            if not self._observations.await_assignments(sent, _ANSWER_SECONDS):
                self._give_up(
                    "no tracker answers: see that a bridge runs, and that it knows this device and its space"
                    if self._session.is_up
                    else f"the connection to the broker at {self._broker} is gone"
                )
                return {}
        assignments = {
            seen.track_id: self._observations.assignment_of(seen.track_id) for seen in report.sightings
        }
        return {
            track_id: assignment for track_id, assignment in assignments.items() if assignment is not None
        }

    def _is_quarantined(self) -> bool:
        if self._health.is_quarantined and not self._ended:
            problems = "; ".join(problem.detail for problem in self._health.problems())
            self._give_up(f"vectors of this device match no other vectors: {problems}")
        return self._ended

    def _give_up(self, why: str) -> None:
        self._ended = True
        self._report_problem(f"{why}. The drawing goes on without global ids")
        self._session.stop(_STOP_SECONDS)


class _FirstAttempt(SessionListener):
    """The outcome of the first attempt to connect.

    It includes whether the site's head has arrived. A SpacesOnRecord that was attached earlier has handled
    the head by then.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._has_head = threading.Event()
        self._connected = False

    def succeeded(self, seconds: float) -> bool:
        """Wait for the attempt, `seconds` at most; return whether it connected."""
        return self._ended.wait(seconds) and self._connected

    def await_head(self, seconds: float) -> None:
        """Wait for the head, `seconds` at most; a new site has none."""
        self._has_head.wait(seconds)

    def connected(self, _now: float) -> None:
        self._connected = True
        self._ended.set()

    def disconnected(self) -> None:
        self._ended.set()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.SYNC_HEAD:
            self._has_head.set()
