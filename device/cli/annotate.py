"""`wfm-device annotate`: why an event came, or did not, drawn into the video."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from broker_bridge.contract.settings import load_settings
from device.annotation import Annotator
from device.bootstrap import database_path
from device.cli.common import Config, config_file, sentences
from device.gallery_rows import GalleryRows
from device.recognition import Recognition, build_recognition
from device.settings import DeviceSettings
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from device.vision.drawing import VideoFile
from device.vision.gallery import Gallery
from device.vision.sources import CameraError, Source, describe, is_live, open_source


def annotate(
    context: typer.Context,
    video: Annotated[str, typer.Argument(help="A video file, or a folder of pictures.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .mp4 or .avi; VIDEO-annotated.mp4 if not set.")
    ] = None,
    config: Config = None,
) -> None:
    """Draw boxes, tracks, ids, distances and the validator's state into a video, by this device's settings.

    The people are those of the device's own database; the time is the video's own.
    """
    with sentences():
        _annotate(video, output, load_settings(DeviceSettings, config_file(context, config), os.environ))


def _annotate(video: str, output: Path | None, settings: DeviceSettings) -> None:
    if is_live(video):
        raise CameraError(f"{describe(video)} is a camera: annotate takes a file or a folder")
    target = output or _beside(Path(video))
    if target.resolve() == Path(video).resolve():
        raise CameraError(f"{target}: the annotated video must not replace the one that is read")
    recognition = build_recognition(settings.device)
    people = _load_gallery(settings, recognition)
    source = open_source(video)
    annotator = Annotator(recognition, settings.device.confirmation_frames)
    file = VideoFile(target, source.fps)
    typer.echo(f"{people} people in the gallery of {settings.device.id}; writing {target}")
    try:
        frames, events = _run(source, annotator, file)
    finally:
        source.close()
        file.close()
    refusals = ", ".join(f"{count} {reason}" for reason, count in annotator.refusals.most_common())
    damaged = f" ({source.corrupt} damaged ones left out)" if source.corrupt else ""
    typer.echo(f"{frames} frames{damaged}, {events} events; no event for: {refusals or 'nothing'}")


def _beside(video: Path) -> Path:
    """Where the drawing goes if nobody says: beside what was read, also when that is `.`."""
    named = video if video.name else video.resolve()
    return named.parent / f"{named.stem or 'video'}-annotated.mp4"


def _run(source: Source, annotator: Annotator, file: VideoFile) -> tuple[int, int]:
    """Frames and events."""
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
    """Everyone whom the device's own database knows; returns how many."""
    path = database_path(settings)
    if not path.is_file():
        raise StoreError(f"{path}: does not exist; name the data folder of a device that has run here")
    db = DatabaseManager(path, settings.device.dev_mode)
    db.connection.open()
    try:
        cursor = db.cursor()
        user_ids, vectors = db.load_gallery(recognition.space.id)
    finally:
        db.close()
    space = recognition.space
    version = cursor.version if cursor else 0
    rows = GalleryRows.usable(space.id, space.dimension, user_ids, vectors, version)
    recognition.galleries.swap(Gallery(space, rows.user_ids, rows.vectors, version=version))
    return len(set(rows.user_ids))
