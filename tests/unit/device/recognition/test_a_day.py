"""24 hours of a busy door in a minute: memory and database stay bounded."""

import gc
import os
import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace, to_array
from broker_bridge.contract.messages import Registered, SyncHead
from device.enrollment.registrations import RegistrationSender
from device.enrollment.sync_manager import SyncManager
from device.events.emotion_validator import EmotionEventValidator
from device.events.event_validator import EventValidator
from device.recognition.emotions import EmotionStage
from device.recognition.pipeline import RecognitionPipeline
from device.recordings.format import RecordedSettings
from device.recordings.recorder import ScoreRecorder
from device.store.db_manager import DatabaseManager
from device.store.outbox import Outbox
from device.timing.clocks import FrameClock
from device.vision.capture.camera import Frame
from device.vision.detectors.detector import Detections
from device.vision.emotion import Emotion
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.tracker import FaceTracker
from tests.device_samples import ModelRegistry, ScriptedLink, seeded, vector

SPACE = "face:test-64"
DIMENSION = 64
RECORDING_BYTES = 400_000
FRAME_SECONDS = 2
BEGIN = datetime(2026, 1, 15, tzinfo=timezone.utc)
PICTURE = np.full((96, 128, 3), 120, np.uint8)


class Visits:
    """A detector and embedder of visits: a face every eight seconds, a fifth unknown."""

    name = "visits"
    space = EmbeddingSpace(SPACE, DIMENSION)

    def __init__(self, clock, people):
        self._clock = clock
        self._people = people
        self._random = random.Random(5)
        self._visit = -1
        self._vector = None

    def detect(self, image):
        visit, second = divmod(self._clock.seconds, 8)
        if visit != self._visit:
            self._visit = visit
            is_unknown = self._random.random() < 0.2
            seed = (
                self._random.randrange(10_000, 10_000_000)
                if is_unknown
                else self._random.randrange(self._people)
            )
            self._vector = to_array(vector(seed, DIMENSION))
        if second >= 6:
            return Detections.empty()
        left = 20 + 40 * (visit % 2)
        return Detections(np.array([[left, 20, 40, 40]], np.float32), np.ones(1, np.float32))

    def embed(self, faces):
        return np.tile(self._vector, (len(faces), 1)) if len(faces) else np.empty((0, DIMENSION), np.float32)


class Smiles:
    """A classifier that returns happy for every face."""

    def classify(self, faces):
        return [Emotion("happy", "EV2.2", 0.9)] * len(faces)


class GoodEnough:
    def check_quality(self, faces, found):
        return [None] * len(faces)


class Camera:
    """A device's parts without threads; the backend answers every minute."""

    def __init__(self, folder: Path, people: int):
        self.clock = FrameClock()
        self.folder = folder
        self.people = people
        self.link = ScriptedLink()
        self.registry = ModelRegistry()
        self.db = DatabaseManager(folder / "device.db", utc_now=self.now)
        self.db.initialize()
        self.outbox = Outbox(self.db.connection, utc_now=self.now, source=seeded(), max_bytes=4_000_000)
        self.events = Counter()
        visits = Visits(self.clock, people)
        self.galleries = GalleryHolder(Gallery.empty(visits.space))
        self.sync = SyncManager(
            self.db,
            self.link,
            device_id="cam-001",
            site_id="lobby",
            spaces={SPACE: DIMENSION},
            source=seeded(),
            on_gallery=lambda rows: self.galleries.swap(
                Gallery(visits.space, rows.user_ids, rows.vectors, version=rows.version)
            ),
            clock=self.clock,
            utc_now=self.now,
        )
        self.registrations = RegistrationSender(self.link, self.db, source=seeded(), utc_now=self.now)
        settings = RecordedSettings(
            device_id="cam-001",
            space=SPACE,
            distance_threshold=0.35,
            min_margin=0.0,
            confirmation_frames=2,
            consistency_threshold=0.8,
            cooldown_seconds=30.0,
        )
        self.recorder = ScoreRecorder(folder / "scores", RECORDING_BYTES, settings, wall_clock=self.now)
        self.validator = EventValidator(
            "cam-001", 2, unknown_events=True, clock=self.clock, wall_clock=self.now
        )
        self.emotions = EmotionEventValidator(
            "cam-001", max_gap_seconds=1.5 * FRAME_SECONDS, clock=self.clock, wall_clock=self.now
        )
        self.tracker = FaceTracker(max_age_seconds=1.5 * FRAME_SECONDS)
        self.pipeline = RecognitionPipeline(
            visits,
            self.tracker,
            visits,
            self.galleries,
            self.validator,
            quality=GoodEnough(),
            emotions=EmotionStage(Smiles(), self.emotions),
            clock=self.clock,
            on_event=self.keep,
        )
        head = SyncHead(epoch="aa", version=0, horizon=0, spaces={}, enrollment_policy="visitors")
        self.receive(channels.SYNC_HEAD, head)
        self.sync.connected(0.0)
        self.registrations.connected(0.0)

    def now(self):
        return BEGIN + timedelta(seconds=self.clock.seconds)

    def keep(self, event, box, frame):
        self.events[event.event_type] += 1
        self.outbox.put(event, None)

    def receive(self, channel, message):
        for part in (self.sync, self.registrations):
            part.receive_message(Decoded(channel, {}, message))

    def look(self, index):
        self.clock.seconds = float(index)
        report = self.pipeline.process(Frame(PICTURE, index, float(index)))
        self.recorder.record(report)
        for seen in report.sightings:
            if seen.decision.event and seen.decision.event.event_type == "unknown":
                self.registrations.offer_visitor(SPACE, seen.vector.astype("<f4").tobytes())

    def answer(self, minute):
        """Answer as a backend does in a minute.

        It sends receipts and decisions, and changes the gallery.
        """
        for _ in range(20):
            due = self.outbox.due(self.clock(), 100)
            for event in due:
                self.outbox.mark_sent(event, self.clock())
            self.outbox.settle([event.event_id for event in due])
            if not due:
                break
        self.registrations.tick(self.clock())
        for registration in self.link.of(channels.REGISTER):
            self.receive(
                channels.REGISTERED, Registered(request_id=registration.request_id, result="created")
            )
        user_id = minute % self.people
        if minute > self.people and minute % 7 == 0:
            delta = self.registry.delete(f"EMP-{user_id}")
        else:
            delta = self.registry.enroll(f"EMP-{user_id}", user_id, space=SPACE)
        self.receive(channels.SYNC_DELTA, delta)
        self.sync.tick(self.clock())
        for request in self.link.of(channels.SYNC_REQUEST):
            self.receive(channels.SYNC_PAGE, self.registry.answer(request))
        self.link.published.clear()

    def sizes(self):
        """Return the size of everything that could grow, by name."""
        gc.collect()
        with self.db.connection.reading() as connection:
            tables = [
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                )
            ]
            rows = {
                name: connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0] for name in tables
            }
            [pages] = connection.execute("PRAGMA page_count").fetchone()
            [free] = connection.execute("PRAGMA freelist_count").fetchone()
        return rows | {
            "tracks": len(self.tracker),
            "validator's tracks": self.validator.tracks_in_memory,
            "validator's cooldowns": self.validator.cooldowns_in_memory,
            "emotions' tracks": self.emotions.tracks_in_memory,
            "emotions' cooldowns": self.emotions.cooldowns_in_memory,
            "database pages in use": pages - free,
            "MB of memory": resident_mb(),
        }


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(("hours", "people"), [(4, 100), pytest.param(24, 200, marks=pytest.mark.long)])
def test_after_a_day_nothing_has_grown(tmp_path, hours, people):
    """A device is as large at the end of a day as at half of it.

    24 hours are 43,200 frames, 10,800 visits and a change of the gallery each minute. Four are the
    shortest time whose first half fills a gallery of a hundred.
    """
    half = hours * 1800
    camera = Camera(tmp_path, people)
    sizes = {}
    for second in range(0, 2 * half, FRAME_SECONDS):
        camera.look(second)
        if second % 60 == 0:
            camera.answer(second // 60)
        if second % half == half - FRAME_SECONDS:
            sizes[second // half] = camera.sizes()
    assert all(camera.events[kind] > 40 * hours for kind in ("facial_id", "unknown", "emotion")), (
        camera.events
    )
    assert camera.registrations.counts["created"] > 40 * hours
    noon, night = sizes[0], sizes[1]
    grown = {
        name: (noon[name], night[name])
        for name in night
        if night[name] > max(1.1 * noon[name], noon[name] + 3)
    }
    assert grown == {}, f"{sizes}"
    assert sum(file.stat().st_size for file in (tmp_path / "scores").iterdir()) <= RECORDING_BYTES
    camera.recorder.close()
    camera.db.close()
