"""Run `wfm-device enroll`: enroll a person on this device only, in dev mode."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import track

from broker_bridge.common.pictures.picture_format import HEAD_BYTES, PICTURE_SUFFIXES, picture_format
from broker_bridge.common.programs.cli import Config
from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.common.template_choice import choose_templates, find_outliers
from broker_bridge.contract.embeddings import Vector, to_array
from broker_bridge.contract.ids import UserId
from device.bootstrap import database_path, sole_owner
from device.cli.common import config_file, exit_on_error
from device.management.gallery_watch import describe_missing
from device.management.spaces_on_record import stored_record
from device.recognition.assembly import Recognition, build_recognition
from device.settings import DeviceSettings
from device.store.db_manager import DatabaseManager
from device.vision.photo_embedder import PhotoEmbedder, PhotoFace
from device.vision.photos.errors import PhotoError

# Pictures of one person may lie further apart than a match; outliers lie further still.
_OUTLIER_FACTOR = 2.0

Refusals = dict[Path, str]


@dataclass(frozen=True)
class _Picture:
    file: Path
    face: PhotoFace


def _user_id(text: str) -> str:
    try:
        return TypeAdapter(UserId).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is no user id; an id is like EMP-12345") from error


def enroll(
    context: typer.Context,
    user: Annotated[str, typer.Option("--user", help="The person's id.", callback=_user_id)],
    images: Annotated[
        Path,
        typer.Option("--images", exists=True, file_okay=False, help="A folder of pictures of one person."),
    ],
    config: Config = None,
) -> None:
    """Enroll a person on this device only, from a folder of pictures.

    Works in dev mode only. The device keeps at most five templates, the most different of the good pictures.
    They replace an earlier local enrollment, and the registry's person of that id replaces them. The device
    must not be running.
    """
    with exit_on_error():
        settings = load_settings(DeviceSettings, config_file(context, config), os.environ)
        if not settings.device.dev_mode:
            raise SettingsError(
                ["device.dev_mode: is off; in production every person comes from the registry: enroll there"]
            )
        with sole_owner(settings.device.data_dir):
            enrolled = _enroll(user, images, settings)
    if not enrolled:
        raise typer.Exit(1)


def _enroll(user: str, images: Path, settings: DeviceSettings) -> bool:
    db = DatabaseManager(database_path(settings), dev_mode=True)
    db.initialize()
    with closing(db):
        if db.is_local(user) is False:
            raise SettingsError([f"{user} comes from the registry: enroll there, or use another id"])
        recognition = build_recognition(settings.device)
        space = recognition.space.id
        recognition.limits.follow_registry(stored_record(db.get_config, space).limits)
        limits = recognition.limits.match_limits()
        if limits is None:
            raise SettingsError([describe_missing(space)])
        files = sorted(file for file in images.iterdir() if _is_picture(file))
        refusals: Refusals = {}
        usable = list(_faces(files, recognition, refusals))
        usable = _drop_outliers(usable, _OUTLIER_FACTOR * limits.distance, refusals)
        for file, reason in sorted(refusals.items()):
            typer.echo(f"{file.name}: {reason}")
        if not usable:
            typer.echo(f"{user} was not enrolled: none of {len(files)} pictures can be used")
            return False
        faces = [usable[row].face for row in _best(usable)]
        templates = [(face.vector, round(face.quality, 4)) for face in faces]
        db.enroll_locally(user, space, templates, detector=recognition.detector.name)
    typer.echo(f"{user}: {len(templates)} templates of {space} from {len(usable)} of {len(files)} pictures")
    return True


def _is_picture(file: Path) -> bool:
    """Return whether a file is called a picture or begins like one."""
    if file.suffix.lower() in PICTURE_SUFFIXES or not file.is_file():
        return file.suffix.lower() in PICTURE_SUFFIXES
    try:
        with file.open("rb") as opened:
            return picture_format(opened.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _faces(files: Sequence[Path], recognition: Recognition, refusals: Refusals) -> Iterator[_Picture]:
    photos = PhotoEmbedder(recognition.detector, recognition.embedder)
    for file in track(files, "Reading pictures", console=Console(stderr=True), transient=True):
        try:
            yield _Picture(file, photos.embed_photo(file.read_bytes()))
        except PhotoError as error:
            refusals[file] = error.detail
        except OSError as error:
            refusals[file] = f"cannot be read ({error.strerror})"


def _drop_outliers(usable: list[_Picture], max_distance: float, refusals: Refusals) -> list[_Picture]:
    outliers = find_outliers(_vectors(usable), max_distance) if usable else []
    for row in outliers:
        refusals[usable[row].file] = "shows another person than the other pictures"
    return [picture for row, picture in enumerate(usable) if row not in outliers]


def _best(usable: Sequence[_Picture]) -> list[int]:
    return choose_templates(_vectors(usable), [picture.face.quality for picture in usable])


def _vectors(pictures: Sequence[_Picture]) -> Vector:
    return np.stack([to_array(picture.face.vector) for picture in pictures])
