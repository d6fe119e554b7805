"""The wiring of `python -m device`: settings become a camera that is ready to run."""

import fcntl
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.commands import RESYNC, RUN_CANARY
from broker_bridge.contract.embeddings import DEFAULT_DIMENSIONS, EmbeddingSpace
from broker_bridge.contract.errors import STORE_DAMAGED
from broker_bridge.contract.messages import SpaceInfo
from broker_bridge.contract.spaces import SpaceRecord

from .client.assembly import Assembly, assemble, software_version
from .client.iot_client import Image
from .enrollment.gallery_rows import GalleryRows
from .enrollment.gallery_state import OnGallery
from .enrollment.registrations import RegistrationSender
from .events.image_utils import compress_to_jpeg
from .management.canary_run import CanaryRun
from .management.commands import CommandRunner, Handler
from .management.gallery_watch import GalleryWatch
from .management.health import Health
from .management.heartbeat import HeartbeatSender
from .management.spaces_on_record import SpacesOnRecord
from .mqtt.config import IoTClientConfig
from .npy_folders.gallery_view import GalleryFeed
from .npy_folders.watch import NpyWatch
from .program import DeviceProgram
from .recognition.assembly import Recognition, build_recognition
from .recordings.format import RecordedSettings
from .recordings.recorder import ScoreRecorder
from .settings import DeviceSection, DeviceSettings
from .spaces import space_of_modality, supported_spaces
from .store.connection import StoreError
from .tracking.observations import ObservationSender
from .vision.gallery import Gallery


class AlreadyRunningError(RuntimeError):
    """Another process uses this data directory."""


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Lock `data_dir` for this process.

    Two devices on one outbox would send every event twice. Raises AlreadyRunningError, or StoreError if
    the folder cannot be made or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "device.lock").open("w")
    except OSError as error:
        raise StoreError(
            f"{data_dir}: cannot be used as data folder ({error.strerror}); set WFM_DEVICE__DATA_DIR to a "
            "folder that this user may write"
        ) from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(
                f"{data_dir}: another device runs on this folder; stop it, or set WFM_DEVICE__DATA_DIR"
            ) from error
        yield


def database_path(settings: DeviceSettings) -> Path:
    return settings.device.data_dir / "device.db"


def build(settings: DeviceSettings) -> DeviceProgram:
    """Build every part of a camera from its settings.

    Raises StoreError, ModelError, RecordingError or SettingsError with one sentence.
    """
    device = settings.device
    recognition = build_recognition(device)
    spaces = supported_spaces(recognition.space, device.further_spaces)
    feed = GalleryFeed()
    health = Health()
    watch = GalleryWatch(recognition.space.id, recognition.limits, health)
    config = client_config(settings, spaces, recognition.record)
    parts = assemble(
        config,
        database_path(settings),
        on_gallery=_gallery_swap(recognition, watch, feed),
        encode_image=_encoder(device.image_kb * 1000),
        outbox_bytes=device.outbox_mb * 1024 * 1024,
    )
    if parts.db.damage is not None:
        health.report(STORE_DAMAGED, parts.db.damage)
    canary = CanaryRun(recognition.embedder.session, recognition.space.id, health, device.reference_model)
    canary.run()
    registrations = _registrations(parts, recognition.space, health)
    observations = _observations(parts, recognition.space, health)
    commands = CommandRunner(
        parts.client, parts.db, _handlers(parts, canary), utc_now=parts.client.clock.utc_now
    )
    program = DeviceProgram(
        device,
        parts,
        recognition,
        health=health,
        gallery_watch=watch,
        registrations=registrations,
        commands=commands,
        recorder=_recorder(device, recognition),
        npy_watch=_npy_watch(device, spaces, feed, parts=parts, registrations=registrations, health=health),
        observations=observations if device.observations else None,
    )
    heartbeat = HeartbeatSender(
        parts.client,
        parts.sync,
        folder=device.data_dir,
        interval=device.heartbeat_seconds,
        clock=time.monotonic,
        utc_now=utc_now,
        vision=program.vision_readings,
    )
    parts.db.connection.on_damage = program.end_for_repair
    records = SpacesOnRecord(parts.db, health, config.spaces, watch.follow_records)
    for listener in (records, registrations, commands, heartbeat, observations):
        parts.client.attach(listener)
    return program


def _gallery_swap(recognition: Recognition, watch: GalleryWatch, feed: GalleryFeed) -> OnGallery:
    def swap(rows: GalleryRows) -> None:
        space = recognition.space
        if rows.space == space.id:
            gallery = Gallery(space, rows.user_ids, rows.vectors, version=rows.version)
            watch.follow_gallery(rows, lambda: recognition.galleries.swap(gallery))
        feed.update(rows)

    return swap


def _registrations(parts: Assembly, space: EmbeddingSpace, health: Health) -> RegistrationSender:
    return RegistrationSender(
        parts.client,
        parts.db,
        source=random.Random(),  # noqa: S311  # spreads repeats; nothing secret
        utc_now=parts.client.clock.utc_now,
        is_quarantined=lambda space_id: space_id == space.id and health.is_quarantined,
    )


def _observations(parts: Assembly, space: EmbeddingSpace, health: Health) -> ObservationSender:
    return ObservationSender(
        parts.client,
        space,
        clock=time.monotonic,
        run=secrets.token_hex(3),
        quarantined=lambda: health.is_quarantined,
    )


def client_config(
    settings: DeviceSettings, supported: Sequence[EmbeddingSpace], record: SpaceRecord
) -> IoTClientConfig:
    """Return the client configuration of a device with the spaces `supported`.

    `record` is that of the camera's own space.
    """
    device = settings.device
    spaces = {
        space.id: SpaceInfo(dimension=space.dimension, model_sha256=space.model_sha256) for space in supported
    }
    prepared = {"detector": record.detector, "alignment": record.alignment}
    spaces[record.space] = spaces[record.space].model_copy(update=prepared)
    return IoTClientConfig(
        device_id=device.id,
        site_id=device.site,
        mqtt=settings.mqtt,
        spaces=spaces,
        software=software_version(),
        hardware=device.hardware,
        dev_mode=device.dev_mode,
    )


def _handlers(parts: Assembly, canary: CanaryRun) -> dict[str, Handler]:
    def resync(_: object) -> str:
        parts.sync.request_sync(0)
        return "a snapshot sync is requested"

    return {RUN_CANARY.name: canary.handle, RESYNC.name: resync}


def _npy_watch(
    device: DeviceSection,
    supported: Sequence[EmbeddingSpace],
    feed: GalleryFeed,
    *,
    parts: Assembly,
    registrations: RegistrationSender,
    health: Health,
) -> NpyWatch | None:
    if device.npy_dir is None:
        return None
    return NpyWatch(
        device.npy_dir,
        {modality: space_of_modality(modality, supported) for modality in DEFAULT_DIMENSIONS},
        feed,
        connection=parts.db.connection,
        register=registrations.register_employee,
        health=health,
        mirror=device.mirror_npy,
        watch_seconds=device.watch_seconds,
        is_synced=lambda: parts.sync.synced_at is not None,
        clock=time.monotonic,
    )


def _recorder(device: DeviceSection, recognition: Recognition) -> ScoreRecorder | None:
    if device.record_scores is None:
        return None
    limits = recognition.validator.limits
    settings = RecordedSettings(
        device_id=device.id,
        space=recognition.space.id,
        confirmation_frames=device.confirmation_frames,
        consistency_threshold=device.consistency_threshold,
        cooldown_seconds=device.cooldown_seconds,
        distance_threshold=limits.distance,
        min_margin=limits.margin,
        unknown_events=device.unknown_events,
    )
    return ScoreRecorder(device.record_scores, device.record_mb * 1024 * 1024, settings)


def _encoder(budget: int) -> Callable[[Image, Sequence[float] | None], bytes | None]:
    return lambda image, box: compress_to_jpeg(image, budget, box)
