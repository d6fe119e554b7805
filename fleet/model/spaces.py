"""Run `wfm-fleet model add`, `list` and `remove`: the spaces of the registry."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from broker_bridge.common.programs.cli import Config
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.ids import SpaceId
from broker_bridge.contract.spaces import Alignment, DetectorName, LimitsSource, SpaceRecord
from fleet.api_client import RegisteredSpace
from fleet.common import exit_on_error, open_api
from fleet.errors import CannotRunError

from .api_calls import call, describe_source
from .loaded_model import FACE, measure_model, record_beside
from .record_file import read_limits, write_record

_HASH_SHOWN = 12


def check_space(text: str | None) -> str | None:
    """Return a space id of the command line; raises BadParameter."""
    if text is None:
        return None
    try:
        return TypeAdapter[str](SpaceId).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter("expected a space such as face:arcface-w600k-r50, in lower case") from error


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not talk to the API.")]


def add_model(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="ONNX file or TensorRT engine.")],
    space: Annotated[
        str | None,
        typer.Option(
            help="The name of its vectors, for example face:arcface-w600k-r50.", callback=check_space
        ),
    ] = None,
    detector: Annotated[
        DetectorName | None, typer.Option(help="The detector of enrollment and cameras.")
    ] = None,
    alignment: Annotated[
        Alignment | None, typer.Option(help="Onto five landmarks, or the square of the box.")
    ] = None,
    limits: Annotated[
        Path | None, typer.Option(help="JSON with the limits of the space; without: none is matched in it.")
    ] = None,
    offline: Offline = False,
    force: Annotated[bool, typer.Option("--force", help="Replace another record beside the model.")] = False,
    config: Config = None,
) -> None:
    """Record a model: measure its dimension and SHA-256, and name its space.

    The record goes to the registry, where every camera and the API learn it, and as JSON beside the model
    file. A record that lies there already is used; the options change it with --force. The limits that the
    registry has for this model stay there, unless --limits names others. Needs a key of an admin.

    Status 0: recorded; 2: it could not run.
    """
    with exit_on_error():
        path, beside = record_beside(model)
        record = _make_record(model, beside, space, detector, alignment)
        if limits is not None:
            source = LimitsSource(kind="shipped")
            record = record.model_copy(update={"limits": read_limits(limits), "source": source})
        if beside not in (None, record) and not force:
            raise CannotRunError(f"{path} has another record of this model: --force replaces it")
        if not offline:
            with open_api(context, config, Console(stderr=True)) as api:
                registered = call(api, lambda: api.space(record.space))
                new = record if limits is not None else _keep_limits(record, registered)
                call(api, lambda: api.put_space(new))
        write_record(path, record)
    where = "" if offline else " and in the registry"
    typer.echo(
        f"{record.space}: {record.dimension} dimensions, {record.detector}, {record.alignment}, "
        f"SHA-256 {str(record.model_sha256)[:_HASH_SHOWN]}...; recorded in {path}{where}"
    )
    if record.limits is None:
        typer.echo("without limits nothing is matched in this space: wfm-fleet model calibrate proposes them")


def _make_record(
    model: Path,
    beside: SpaceRecord | None,
    space: str | None,
    detector: DetectorName | None,
    alignment: Alignment | None,
) -> SpaceRecord:
    """Return the record of a model, measured; raises CannotRunError."""
    name = space or (beside.space if beside else None)
    if name is None:
        raise CannotRunError(f"{model} has no record: name its space, as in --space face:arcface-w600k-r50")
    if not name.startswith(FACE):
        raise CannotRunError(f"{name}: a model of faces has a space face:<model>")
    measured = measure_model(model, name)
    if name == DEFAULT_FACE_SPACE.space and measured.model_sha256 != DEFAULT_FACE_SPACE.model_sha256:
        raise CannotRunError(
            f"{name} is the space of the built-in model, and {model} is another file: name another space"
        )
    # What lies there may be of another model, whose limits are none for this one.
    is_same = beside is not None and (beside.space, beside.dimension) == (name, measured.dimension)
    if beside is None or not is_same or beside.model_sha256 not in (None, measured.model_sha256):
        beside = SpaceRecord(space=name, dimension=measured.dimension)
    return SpaceRecord(
        space=name,
        dimension=measured.dimension,
        model_sha256=measured.model_sha256,
        detector=detector or beside.detector or "cascade",
        alignment=alignment or beside.alignment or "landmarks",
        limits=beside.limits,
        source=beside.source,
    )


def _keep_limits(record: SpaceRecord, registered: RegisteredSpace | None) -> SpaceRecord:
    """Return `record` with the limits that the registry has for its model."""
    if registered is None or registered.limits is None or registered.model_sha256 != record.model_sha256:
        return record
    return record.model_copy(update={"limits": registered.limits, "source": registered.source})


def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: Config = None,
) -> None:
    """List the spaces of the registry: their models, limits, people and devices.

    Status 0: listed; 2: it could not run.
    """
    with exit_on_error(), open_api(context, config, Console(stderr=True)) as api:
        spaces = call(api, api.spaces)
    if as_json:
        typer.echo(json.dumps([space.model_dump(mode="json") for space in spaces], indent=2))
        return
    table = Table()
    for column in ("space", "dimension", "SHA-256", "detector", "alignment", "distance, margin", "limits"):
        table.add_column(column)
    for column in ("people", "templates", "devices"):
        table.add_column(column, justify="right")
    for space in spaces:
        table.add_row(*_row(space))
    Console().print(table)


def _row(space: RegisteredSpace) -> tuple[str, ...]:
    limits = space.limits
    return (
        f"{space.space} (default)" if space.default else space.space,
        str(space.dimension),
        (space.model_sha256 or "-")[:_HASH_SHOWN],
        space.detector or "-",
        space.alignment or "-",
        f"{limits.distance:g}, {limits.margin:g}" if limits else "none",
        describe_source(space.source) if limits else "nothing is matched",
        str(space.identities),
        str(space.templates),
        str(len(space.devices)),
    )


def remove_model(
    context: typer.Context,
    space: Annotated[str, typer.Argument(help="The space, for example face:old-512.", callback=check_space)],
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Remove a space from the registry with all its templates.

    Cameras drop them with their next sync. The model file and its record stay where they are. A space that a
    device declares, and the one that the API enrolls photos in, cannot be removed. Needs a key of an admin.

    Status 0: removed; 1: not confirmed; 2: it could not run.
    """
    with exit_on_error(), open_api(context, config, Console(stderr=True)) as api:
        found = call(api, lambda: api.space(space))
        if found is None:
            raise CannotRunError(f"the registry has no space {space}: wfm-fleet model list shows all")
        if not yes:
            content = f"{found.templates} templates of {found.identities} people"
            typer.confirm(f"Remove {space} with {content}?", abort=True)
        call(api, lambda: api.delete_space(space))
    typer.echo(f"{space} is removed with {found.templates} templates of {found.identities} people")
