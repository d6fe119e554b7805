"""Run `wfm-device compare`: do two photographs show one person."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from broker_bridge.common.logs import configure_logging
from broker_bridge.common.programs.cli import Config
from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.spaces import SpaceLimits
from device.bootstrap import database_path
from device.cli.common import config_file, exit_on_error
from device.management.gallery_watch import describe_missing
from device.management.space_problems import SpaceOnRecord
from device.management.spaces_on_record import stored_record
from device.recognition.assembly import limits_of, session_options
from device.settings import DeviceSettings
from device.store.inspection import inspect_store
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.photos.errors import PhotoError
from device.vision.recorded.face_model import load_face_model

Verdict = Literal["same", "different", "uncertain"]
_STATUS: dict[Verdict, int] = {"same": 0, "different": 1, "uncertain": 3}
_WORDS: dict[Verdict, str] = {
    "same": "show the same person",
    "different": "show different people",
    "uncertain": "may show the same person",
}
# The command needs a model and no device: a configuration without these is complete.
_NO_DEVICE = {"WFM_DEVICE__ID": "compare", "WFM_DEVICE__SITE": "compare"}


@dataclass(frozen=True)
class ComparedFaces:
    """The similarity of two faces, -1 to 1, and what the limits say of it.

    From `same_from` on they are one person, below `different_below` two.
    """

    space: str
    similarity: float
    same_from: float
    different_below: float
    source: str
    verdict: Verdict


def compare(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(help="A photograph of one face.")],
    second: Annotated[Path, typer.Argument(help="Another photograph of one face.")],
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a sentence.")] = False,
) -> None:
    """Say whether two photographs show the same person.

    The command uses this device's model and limits, or the built-in ones where nothing is configured. It
    needs no network and stores nothing.

    Status 0: the same person. 1: different people. 3: uncertain. 2: the photographs cannot be compared.
    """
    with exit_on_error():
        settings = load_settings(DeviceSettings, config_file(context, config), _NO_DEVICE | dict(os.environ))
        configure_logging(settings.log.model_copy(update={"level": "warning"}))
        compared = _compare(settings, first, second)
    if as_json:
        typer.echo(json.dumps({"first": str(first), "second": str(second), **asdict(compared)}))
    else:
        typer.echo(_sentence(compared, first, second))
    raise typer.Exit(_STATUS[compared.verdict])


def _compare(settings: DeviceSettings, first: Path, second: Path) -> ComparedFaces:
    device = settings.device
    model = load_face_model(device.face_model_settings, session_options(device))
    record = model.record
    limits = limits_of(device, record)
    registry = _on_record(settings, record.space).limits
    limits.follow_registry(registry)
    current = limits.current
    if current is None:
        raise SettingsError([describe_missing(record.space)])
    photos = PhotoEmbedder(model.detector, model.embedder)
    vectors = [to_array(_embed(photos, file)) for file in (first, second)]
    similarity = float(np.dot(vectors[0], vectors[1]))
    of_space = None if record.space in device.thresholds else registry or record.limits
    return judge(record.space, similarity, current.match.distance, of_space, current.source)


def judge(
    space: str, similarity: float, distance: float, limits: SpaceLimits | None, source: str
) -> ComparedFaces:
    """Judge a similarity by the distance of a match and the limit of look-alikes.

    Without `limits` the distance alone decides. Between the two limits it is uncertain.
    """
    bounds = [1.0 - distance, *([limits.look_alike] if limits else [])]
    same_from, different_below = max(bounds), min(bounds)
    verdict: Verdict = "uncertain"
    if similarity >= same_from:
        verdict = "same"
    elif similarity < different_below:
        verdict = "different"
    return ComparedFaces(
        space, round(similarity, 4), round(same_from, 4), round(different_below, 4), source, verdict
    )


def _on_record(settings: DeviceSettings, space: str) -> SpaceOnRecord:
    """Return the registry's record as this device knows it, if it has run here."""
    path = database_path(settings)
    if not path.is_file():
        return SpaceOnRecord()
    with inspect_store(path) as store:
        return stored_record(store.config, space)


def _embed(photos: PhotoEmbedder, file: Path) -> bytes:
    try:
        return photos.embed_photo(file.read_bytes()).vector
    except PhotoError as error:
        raise SettingsError([f"{file}: {error.detail}"]) from error
    except OSError as error:
        raise SettingsError([f"{file}: cannot be read ({error.strerror})"]) from error


def _sentence(compared: ComparedFaces, first: Path, second: Path) -> str:
    bounds = f"one person from {compared.same_from:.2f}"
    if compared.different_below < compared.same_from:
        bounds += f", two people below {compared.different_below:.2f}"
    return (
        f"{first} and {second} {_WORDS[compared.verdict]}: similarity {compared.similarity:.2f} in "
        f"{compared.space} ({bounds}; limits {compared.source})"
    )
