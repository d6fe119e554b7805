"""Run `wfm-fleet model calibrate`: propose the limits of a space and record them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from broker_bridge.common.programs.cli import Config
from broker_bridge.contract.spaces import SpaceRecord
from fleet.api_client import ApiClient, RegisteredSpace
from fleet.common import exit_on_error, open_api
from fleet.errors import CannotRunError

from .api_calls import call
from .calibration import GallerySize, calibrate_space, check_record, print_calibration, refuse_objections
from .evaluate import AlignmentOption, Detector, DetectorModel, Folder, Model, exit_on_stop
from .loaded_model import LoadedModel, ModelChoice, load_model, record_beside
from .record_file import write_record
from .spaces import Offline, Yes, check_space

_LEAST_FAR, _MOST_FAR = 1e-6, 0.5


def calibrate(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    folder: Folder,
    people: Annotated[int, typer.Option(min=1, max=10_000_000, help="Enrolled at the largest site.")],
    far: Annotated[
        float,
        typer.Option(min=_LEAST_FAR, max=_MOST_FAR, help="Chance that a stranger is taken for one of them."),
    ],
    model: Model = None,
    space: Annotated[
        str | None,
        typer.Option(help="The space; without it that of the model's record.", callback=check_space),
    ] = None,
    templates: Annotated[int, typer.Option(min=1, max=64, help="Photos enrolled of each person.")] = 1,
    detector: Detector = None,
    detector_model: DetectorModel = None,
    alignment: AlignmentOption = None,
    record: Annotated[bool, typer.Option("--record", help="Also write the JSON beside the model.")] = False,
    offline: Offline = False,
    yes: Yes = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write limits that are not shown, or do not fit.")
    ] = False,
    config: Config = None,
) -> None:
    """Propose the limits of a space from photographs of known people, and record them.

    FOLDER is as for `wfm-fleet model evaluate`. The chance --far is that of a search with one picture among
    --people people. The proposal is compared with the people enrolled in the registry (by an export, which
    the audit notes), and written to the record there after a confirmation. Needs a key of an admin. With
    --offline it is only shown, or written beside the model with --record.

    Limits that too few pairs show, or that join people enrolled, are not written without --force.

    Status 0: written, or shown with --offline; 1: not written; 2: it could not run; 130: stopped with Ctrl-C.
    """
    size = GallerySize(people, templates, far)
    with exit_on_error(), exit_on_stop():
        beside = _record_file(model) if record else None
        loaded = load_model(ModelChoice(model, detector, detector_model, alignment))
        known = _record_of(loaded, space)
        if offline:
            _calibrate_offline(loaded, known, folder, size, beside, force)
            return
        with open_api(context, config, Console(stderr=True)) as api:
            calibration = calibrate_space(loaded, _registered(api, loaded, known), folder, size, api)
            print_calibration(Console(), calibration)
            refuse_objections(calibration, force=force)
            if not yes:
                question = f"Write these limits of {known.space} to the registry of {api.url}?"
                typer.confirm(question, abort=True)
            new = calibration.calibrated_record()
            call(api, lambda: api.put_space(new))
            typer.echo(f"written to the record of {new.space}: cameras get it with the next head")
            _tell_configured(call(api, lambda: api.space(new.space)), new)
        if beside is not None:
            write_record(beside, new)
            typer.echo(f"written to {beside}")


def _tell_configured(found: RegisteredSpace | None, written: SpaceRecord) -> None:
    """Say so if a configuration comes before the limits that were written."""
    if found is not None and found.limits != written.limits:
        typer.echo(
            f"these limits do not hold: registry.limits of a configuration names others for {written.space}",
            err=True,
        )


def _calibrate_offline(  # noqa: PLR0917  # as many values as a calibration has
    loaded: LoadedModel,
    known: SpaceRecord,
    folder: Path,
    size: GallerySize,
    beside: Path | None,
    force: bool,
) -> None:
    calibration = calibrate_space(loaded, known, folder, size, None)
    print_calibration(Console(), calibration)
    refuse_objections(calibration, force=force or beside is None)
    if beside is not None:
        write_record(beside, calibration.calibrated_record())
        typer.echo(f"written to {beside}")


def _record_file(model: Path | None) -> Path:
    if model is None:
        raise CannotRunError(
            "--record: the record of the built-in model is a part of the product; leave it out"
        )
    return record_beside(model)[0]


def _record_of(loaded: LoadedModel, space: str | None) -> SpaceRecord:
    """Return the record beside the model, or a new one for `space`.

    Raises CannotRunError.
    """
    record, measured = loaded.record, loaded.embedder.space
    if record is not None and space in (None, record.space):
        return record
    if record is not None:
        raise CannotRunError(
            f"--space {space}: the record beside the model says {record.space}; leave --space out"
        )
    if space is None:
        raise CannotRunError("the model has no record: name its space with --space, or wfm-fleet model add")
    return SpaceRecord(
        space=space,
        dimension=measured.dimension,
        model_sha256=measured.model_sha256,
        detector=loaded.detector_name,
        alignment=loaded.alignment,
    )


def _registered(api: ApiClient, loaded: LoadedModel, known: SpaceRecord) -> SpaceRecord:
    """Return the record in the registry.

    Raises CannotRunError if there is none, or of another model.
    """
    found = call(api, lambda: api.space(known.space))
    if found is None:
        raise CannotRunError(
            f"the registry at {api.url} has no space {known.space}: record it with wfm-fleet model add"
        )
    record = SpaceRecord.model_validate(found.model_dump(include=set(SpaceRecord.model_fields)))
    return check_record(record, loaded, f"the registry at {api.url}")
