"""Run `wfm-fleet model migrate`: from one space to another, step by step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker_bridge.common.programs.cli import Config
from broker_bridge.contract.ids import DEVICE_ID
from fleet.api_client import ApiClient
from fleet.common import STOPPED, exit_on_error, open_api
from fleet.errors import CannotRunError

from .api_calls import call
from .migration import MigratingSite, MigrationAnswer, MigrationApi
from .missing_people import PhotoReenrollment, write_missing
from .spaces import Yes, check_space

_FACE = "face:"
_BEFORE_PEOPLE = ("record", "api")
_BEFORE_REMOVAL = ("record", "api", "people", "cameras")


def _site(value: str | None) -> str | None:
    if value is not None and not DEVICE_ID.match(value):
        raise typer.BadParameter("expected a site such as lobby: lower-case letters, digits and hyphens")
    return value


@dataclass(frozen=True)
class _Wanted:
    """The options of a run."""

    site: str | None
    photos: Path | None
    report: Path | None
    batch: tuple[str, str] | None
    remove_old: bool

    @property
    def enrolls(self) -> bool:
        return self.photos is not None or self.batch is not None


OldArgument = Annotated[
    str, typer.Argument(metavar="OLD", help="The space in use, as face:old-512.", callback=check_space)
]
NewArgument = Annotated[
    str, typer.Argument(metavar="NEW", help="The space that replaces it.", callback=check_space)
]


def migrate(  # noqa: PLR0917  # typer reads the options from the arguments
    context: typer.Context,
    old: OldArgument,
    new: NewArgument,
    site: Annotated[
        str | None,
        typer.Option(help="Only this site: may its cameras change?", callback=_site),
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(help="Write the people to enroll again to this file, .csv or JSON lines (-)."),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Enroll them again from this folder, a folder of photos per user id.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write each refused photo to this file, a JSON object a line.")
    ] = None,
    batch: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SOURCE BATCH", help="Queue a batch of a photo catalog for embed workers."),
    ] = None,
    remove_old: Annotated[
        bool, typer.Option("--remove-old", help="Remove the old space, the last step.")
    ] = False,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Show how far the change from space OLD to space NEW is, and take its next step.

    The steps, in their order: NEW has a record with limits; the API enrolls into it; the people of OLD are
    enrolled in it; the cameras declare it, site by site; OLD is removed. Both spaces live side by side until
    then. Without options nothing is changed. --photos enrolls the people that are in OLD alone, --batch lets
    workers do so. Reading needs a key of a viewer, enrolling one of an operator, removing one of an admin.

    Status 0: done, and with --site its cameras may change; 1: they may not yet, a photo was refused, or not
    confirmed; 2: it could not run, or a step before is open; 130: stopped with Ctrl-C.
    """
    console = Console(stderr=missing == "-")
    wanted = _Wanted(site, photos, report, batch, remove_old)
    with exit_on_error(), _exit_on_stop(), open_api(context, config, Console(stderr=True)) as api:
        requests = MigrationApi(api, old, new)
        state = call(api, requests.state)
        _check_wanted(state, new, wanted)
        clean = _enroll(api, requests, wanted)
        if missing is not None:
            count = call(api, lambda: write_missing(missing, requests.missing(site)))
            console.print(f"{count} people written to {missing}", soft_wrap=True)
        if remove_old:
            _remove(api, state, old, yes=yes)
        state = call(api, requests.state)
    ready = _print(console, state, site, old, new)
    if not (clean and ready):
        raise typer.Exit(1)


@contextmanager
def _exit_on_stop() -> Iterator[None]:
    """Exit with status 130 after Ctrl-C, without a traceback."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo("stopped: run it again to continue", err=True)
        raise typer.Exit(STOPPED) from error


def _check_wanted(state: MigrationAnswer, new: str, wanted: _Wanted) -> None:
    """Raise CannotRunError for what the migration does not allow yet."""
    if wanted.site is not None and wanted.site not in {one.site_id for one in state.sites}:
        known = ", ".join(one.site_id for one in state.sites if one.site_id) or "none"
        raise CannotRunError(f"there is no site {wanted.site}; known are: {known}")
    if wanted.remove_old and wanted.site is not None:
        raise CannotRunError("--remove-old removes the space for all sites: leave out --site")
    if wanted.enrolls and not new.startswith(_FACE):
        raise CannotRunError(f"{new}: photos have faces alone; enroll other modalities from their source")
    before = _BEFORE_REMOVAL if wanted.remove_old else _BEFORE_PEOPLE if wanted.enrolls else ()
    for step in state.open_steps(before):
        raise CannotRunError(f"nothing was changed: the step {step.step} comes first: {step.detail}")


def _enroll(api: ApiClient, requests: MigrationApi, wanted: _Wanted) -> bool:
    """Enroll missing people again; return whether nothing was refused."""
    clean = True
    if wanted.photos is not None:
        console = Console(stderr=True)
        people = {item.user_id for item in call(api, lambda: list(requests.missing(wanted.site)))}
        clean = PhotoReenrollment(api, console, people).enroll(wanted.photos, wanted.report)
    if batch := wanted.batch:
        job = call(api, lambda: requests.submit_batch(*batch))
        typer.echo(
            f"{job} is queued for embed workers, whose worker.model has to be the new one: everyone in "
            f"batch {batch[1]} is enrolled, and vectors that exist are skipped",
            err=True,
        )
    return clean


def _remove(api: ApiClient, state: MigrationAnswer, old: str, *, yes: bool) -> None:
    found = call(api, lambda: api.space(old))
    if found is None or not state.open_steps(["removal"]):
        return
    if not yes:
        content = f"{found.templates} templates of {found.identities} people"
        alone = f", {state.withheld} of them without consent and not enrolled anew" if state.withheld else ""
        typer.confirm(f"Remove {old} with {content}{alone}?", abort=True)
    call(api, lambda: api.delete_space(old))


def _print(console: Console, state: MigrationAnswer, site: str | None, old: str, new: str) -> bool:
    """Print the state; return whether the cameras of a named site may change."""
    sites = [one for one in state.sites if site in (None, one.site_id)]
    if site is None:
        console.print(_steps(state))
    console.print(_counts(state, old, new))
    if sites:
        console.print(_sites(sites))
    for one in sites:
        if one.warning:
            console.print(Text(f"warning: {one.warning}"), soft_wrap=True)
    if site is None:
        return True
    if sites[0].ready:
        console.print(f"the cameras of {site} may change to {new}", soft_wrap=True)
        return True
    steps = ", ".join(step.step for step in state.open_steps(_BEFORE_PEOPLE))
    console.print(
        f"the cameras of {site} must not change yet: {sites[0].missing} people are missing in {new}"
        + (f"; open steps: {steps}" if steps else ""),
        soft_wrap=True,
    )
    return False


def _steps(state: MigrationAnswer) -> Table:
    table = Table()
    for column in ("", "step", "", "what is the case, and what to do"):
        table.add_column(column)
    following = next((step for step in state.steps if not step.done), None)
    for number, step in enumerate(state.steps, start=1):
        mark = "done" if step.done else "next" if step is following else "open"
        table.add_row(str(number), step.step, mark, step.detail)
    return table


def _counts(state: MigrationAnswer, old: str, new: str) -> str:
    withheld = f", {state.withheld} of these without consent" if state.withheld else ""
    return (
        f"people in both spaces: {state.in_both}; in {old} alone: {state.only_old}{withheld}; "
        f"in {new} alone: {state.only_new}"
    )


def _sites(sites: Sequence[MigratingSite]) -> Table:
    table = Table()
    for column in ("site", "people", "missing", "cameras old", "new", "other", "may change"):
        table.add_column(column, justify="left" if column in {"site", "may change"} else "right")
    for site in sites:
        cameras = (len(site.on_old), len(site.on_new), len(site.elsewhere))
        counts = map(str, (site.identities, site.missing, *cameras))
        table.add_row(site.site_id or "(no site)", *counts, "yes" if site.ready else "no")
    return table
