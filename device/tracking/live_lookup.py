"""The tracker across cameras, asked about the faces of a video as if this device saw them now."""

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
# The site's head, which is retained, has the model that the registry has on record.
_HEAD_SECONDS = 1.0
# It is waited for in vain but once, and a bridge that has just met this device has much to look up.
_ANSWER_SECONDS = 3.0
_STOP_SECONDS = 5.0
# A video may be read faster than it was taken, but faces that are told of within a tenth of a second count as
# those of one picture, hence of different people.
_PICTURES_APART = timedelta(milliseconds=150)
# The tracker believes no clock that is off by minutes, so a long video that is read fast has to wait.
_MOST_AHEAD = timedelta(seconds=60)
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


class LiveTrackerLookup:
    """Connects by `line`, which nobody has started yet, tells by `observations`, and waits for the answers.

    A context manager, for one thread. The first time that something is in the way (no broker, no answer
    within three seconds, a model in quarantine) `say` is given the sentence, and nobody is asked any more.
    """

    def __init__(
        self,
        line: BrokerSession,
        observations: ObservationSender,
        health: Health,
        *,
        broker: str,
        say: Callable[[str], None],
        utc_now: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._line = line
        self._observations = observations
        self._health = health
        self._broker = broker
        self._say = say
        self._utc_now = utc_now
        self._sleep = sleep
        self._attempt = _FirstAttempt()
        self._last = _LONG_AGO
        self._gave_up = False
        line.attach(observations)
        line.attach(self._attempt)

    def __enter__(self) -> "LiveTrackerLookup":
        if not self._is_quarantined():
            self._line.start()
            if not self._attempt.succeeded(_CONNECT_SECONDS):
                refused = self._line.counts["refused"] > 0
                why = "refuses this device, see section mqtt" if refused else "cannot be reached"
                self._give_up(f"the broker at {self._broker} {why}")
            else:
                self._attempt.await_head(_HEAD_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.stop(_STOP_SECONDS)

    def look_up(self, report: FrameReport, frame_size: tuple[int, int]) -> Mapping[str, Assignment]:
        """Who the faces of `report` are, by track; `frame_size` is width and height in pixels.

        Waits until the tracker has answered for those that are due to be told of, three seconds at most.
        """
        if self._gave_up or self._is_quarantined():
            return {}
        at = max(self._utc_now(), self._last + _PICTURES_APART)
        if at - self._utc_now() > _MOST_AHEAD:
            self._sleep(_PICTURES_APART.total_seconds())
        told = self._observations.send_report(report, frame_size, at)
        if told:
            self._last = at
            if not self._observations.await_assignments(told, _ANSWER_SECONDS):
                self._give_up(
                    "no tracker answers: see that a bridge runs, and that it knows this device and its space"
                    if self._line.is_up
                    else f"the connection to the broker at {self._broker} is gone"
                )
                return {}
        answers = {
            seen.track_id: self._observations.assignment_of(seen.track_id) for seen in report.sightings
        }
        return {track_id: answer for track_id, answer in answers.items() if answer is not None}

    def _is_quarantined(self) -> bool:
        if self._health.is_quarantined and not self._gave_up:
            problems = "; ".join(problem.detail for problem in self._health.problems())
            self._give_up(f"vectors of this device compare with nobody: {problems}")
        return self._gave_up

    def _give_up(self, why: str) -> None:
        self._gave_up = True
        self._say(f"{why}. The drawing goes on without global ids")
        self._line.stop(_STOP_SECONDS)


class _FirstAttempt(SessionListener):
    """How the first attempt to connect ends, and whether the site's head has come (which a ModelRecord that
    was attached before has seen by then); part of the link, see `SessionListener`."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._has_head = threading.Event()
        self._connected = False

    def succeeded(self, seconds: float) -> bool:
        """Waits for its end, `seconds` at most."""
        return self._ended.wait(seconds) and self._connected

    def await_head(self, seconds: float) -> None:
        """Wait for the head; a site that has none yet is done without."""
        self._has_head.wait(seconds)

    def connected(self, _now: float) -> None:
        self._connected = True
        self._ended.set()

    def disconnected(self) -> None:
        self._ended.set()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.SYNC_HEAD:
            self._has_head.set()
