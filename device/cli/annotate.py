"""Run `wfm-device annotate`: draw the reasons for events into a video."""

import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from broker_bridge.common.clock import utc_now
from broker_bridge.common.logs import configure_logging
from broker_bridge.common.programs.cli import Config
from broker_bridge.common.settings import SettingsError, load_settings
from device.bootstrap import client_config, database_path, sole_owner
from device.cli.common import config_file, exit_on_error
from device.enrollment.gallery_rows import GalleryRows
from device.management.canary_run import CanaryRun
from device.management.gallery_watch import describe_missing
from device.management.health import Health
from device.management.spaces_on_record import SpacesOnRecord, stored_record
from device.mqtt.config import check_tls_files
from device.mqtt.connection_loop import BrokerSession
from device.mqtt.paho_connection import PahoConnection
from device.recognition.assembly import Recognition, build_recognition
from device.recordings.annotation import Annotator, person_line
from device.settings import DeviceSettings
from device.spaces import supported_spaces
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from device.tracking.live_lookup import LiveTrackerLookup
from device.tracking.observations import ObservationSender
from device.vision.capture.sources import CameraError, Source, describe, is_live, open_source
from device.vision.drawing import VideoFile
from device.vision.gallery import Gallery


def annotate(
    context: typer.Context,
    video: Annotated[str, typer.Argument(help="A video file, or a folder of pictures.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .mp4 or .avi; VIDEO-annotated.mp4 if not set.")
    ] = None,
    ask_tracker: Annotated[
        bool, typer.Option("--ask-tracker", help="Draw the global ids of the faces, too.")
    ] = False,
    config: Config = None,
) -> None:
    """Draw boxes, tracks, ids, distances and decisions into a video.

    The settings are those of this device.

    The gallery is that of the device's own database; the time is the video's own. With --ask-tracker the
    command connects to the broker as this device, which must not run meanwhile, and sends the faces to the
    backend as if they were seen now: they become detected persons there.
    """
    with exit_on_error():
        settings = load_settings(DeviceSettings, config_file(context, config), os.environ)
        _annotate(video, output, settings, with_tracker=ask_tracker)


def _annotate(video: str, output: Path | None, settings: DeviceSettings, *, with_tracker: bool) -> None:
    if is_live(video):
        raise CameraError(f"{describe(video)} is a camera: annotate takes a file or a folder")
    target = output or _beside(Path(video))
    if target.resolve() == Path(video).resolve():
        raise CameraError(f"{target}: the annotated video must not replace the one that is read")
    recognition = build_recognition(settings.device)
    people = _load_gallery(settings, recognition)
    if recognition.limits.current is None:
        raise SettingsError([describe_missing(recognition.space.id)])
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(video)))
        file = opened.enter_context(closing(VideoFile(target, source.fps)))
        annotator = Annotator(recognition, settings.device.confirmation_frames)
        if with_tracker:
            annotator.look_up_tracks = opened.enter_context(_asked_tracker(settings, recognition)).look_up
        typer.echo(f"{people} people in the gallery of {settings.device.id}; writing {target}")
        frames, events = _annotate_frames(source, annotator, file)
    refusals = ", ".join(f"{count} {reason}" for reason, count in annotator.refusals.most_common())
    damaged = f" ({source.corrupt} damaged ones left out)" if source.corrupt else ""
    typer.echo(f"{frames} frames{damaged}, {events} events; no event for: {refusals or 'nothing'}")
    if annotator.assigned:
        named = ", ".join(person_line(*person) for person in sorted(annotator.assigned.items()))
        typer.echo(f"across cameras: {named}")


def _beside(video: Path) -> Path:
    """Return the default output: beside the input, also if that is `.`."""
    named = video if video.name else video.resolve()
    return named.parent / f"{named.stem or 'video'}-annotated.mp4"


def _annotate_frames(source: Source, annotator: Annotator, file: VideoFile) -> tuple[int, int]:
    """Annotate the whole video and return the counts of frames and events."""
    frames = events = 0
    with Progress(transient=True) as progress:
        task = progress.add_task("annotating", total=None)
        while (image := source.read()) is not None:
            done = annotator.annotate(image, frames, frames / source.fps)
            file.write(done.image)
            for line in done.events:
                progress.console.print(line, markup=False, highlight=False)
            frames += 1
            events += len(done.events)
            progress.update(task, advance=1, description=f"annotating, frame {frames}")
    if not frames:
        raise CameraError("there is no picture in it that can be read")
    return frames, events


def _load_gallery(settings: DeviceSettings, recognition: Recognition) -> int:
    """Load the gallery of the device's own database; return the number of identities."""
    path = database_path(settings)
    if not path.is_file():
        raise StoreError(f"{path}: does not exist; name the data folder of a device that has run here")
    db = DatabaseManager(path, settings.device.dev_mode)
    db.connection.open()
    try:
        cursor = db.cursor()
        user_ids, vectors = db.load_gallery(recognition.space.id)
        recognition.limits.follow_registry(stored_record(db.get_config, recognition.space.id).limits)
    finally:
        db.close()
    space = recognition.space
    version = cursor.version if cursor else 0
    rows = GalleryRows.from_stored(space.id, space.dimension, user_ids, vectors, version)
    recognition.galleries.swap(Gallery(space, rows.user_ids, rows.vectors, version=version))
    return len(set(rows.user_ids))


@contextmanager
def _asked_tracker(settings: DeviceSettings, recognition: Recognition) -> Iterator[LiveTrackerLookup]:
    """Open a connection as this device that only sends faces.

    Raises AlreadyRunningError, SettingsError or StoreError.
    """
    device, space = settings.device, recognition.space
    if not device.observations:
        raise SettingsError(["device.observations is false: this device sends no faces to the backend"])
    check_tls_files(settings.mqtt)
    # A connection problem is reported once, in our own sentence.
    quieter = {"level": "error"} if settings.log.level == "info" else {}
    configure_logging(settings.log.model_copy(update=quieter))
    config = client_config(settings, supported_spaces(space, device.further_spaces), recognition.record)
    db = DatabaseManager(database_path(settings), device.dev_mode)
    with sole_owner(device.data_dir), closing(db):
        db.initialize()
        health = Health()
        CanaryRun(recognition.embedder.session, space.id, health, device.reference_model).run()
        line = BrokerSession(
            config,
            db,
            partial(PahoConnection, config),
            is_drained=lambda: True,
            source=random.Random(),  # noqa: S311  # spreads retries; nothing secret
            clock=time.monotonic,
            utc_now=utc_now,
        )
        line.attach(SpacesOnRecord(db, health, config.spaces))
        observations = ObservationSender(
            line,
            space,
            clock=time.monotonic,
            run=secrets.token_hex(3),
            quarantined=lambda: health.is_quarantined,
        )
        broker = f"{settings.mqtt.host}:{settings.mqtt.port}"
        say = partial(typer.echo, err=True)
        with LiveTrackerLookup(
            line, observations, health, broker=broker, report_problem=say, utc_now=utc_now, sleep=time.sleep
        ) as tracker:
            yield tracker
