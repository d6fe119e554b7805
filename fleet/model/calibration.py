"""Calibrate one space by photographs, and by the gallery of the registry."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.spaces import LimitsSource, SpaceLimits, SpaceRecord
from fleet.api_client import ApiClient
from fleet.errors import CannotRunError

from .api_calls import call, describe_source
from .evaluate import read_photos, sample
from .loaded_model import LoadedModel

if TYPE_CHECKING:
    from .gallery_check import EnrolledGallery, GalleryFit
    from .measures.proposal import LimitsProposal
    from .measures.searches import SearchOutcome

# Limits that join more of the pairs of people enrolled than this do not fit them.
_MOST_MATCHING = 0.01


@dataclass(frozen=True)
class GallerySize:
    """The galleries that limits are for, and the chance of a false match."""

    people: int
    templates: int
    far: float


@dataclass(frozen=True)
class Calibration:
    """A proposal for the space of `record`, which has the limits in use now.

    `outcome` and `fit` are at the proposed limits: of the photographs, and of the gallery; those `before`
    are at the limits in use.
    """

    record: SpaceRecord
    size: GallerySize
    proposal: "LimitsProposal"
    subjects: int
    pairs: int
    outcome: "SearchOutcome"
    outcome_before: "SearchOutcome | None"
    fit: "GalleryFit | None"
    fit_before: "GalleryFit | None"

    def objections(self) -> list[str]:
        """Return sentences against these limits; they are written with --force only."""
        found = []
        proposal = self.proposal
        if not proposal.is_shown:
            found.append(
                f"{proposal.impostor_pairs:,} impostor pairs are too few to show this chance, which takes "
                f"{proposal.needed_pairs:,} (rule of three): the limits continue the tail of the scores. Add "
                "photos of more people, or ask for a greater --far"
            )
        if self.fit is not None and self.fit.share > _MOST_MATCHING:
            found.append(
                f"{self.fit.matching:,} of {self.fit.pairs:,} pairs of people enrolled lie within these "
                "limits: they do not fit the gallery, or it has people enrolled twice"
            )
        return found

    def calibrated_record(self) -> SpaceRecord:
        """Return the record with the proposed limits and their source."""
        note = (
            f"{self.size.far:g} per search among {self.size.people} people with {self.size.templates} "
            f"templates, photographs of {self.subjects} people"
        )
        if not self.proposal.is_shown:
            note += "; too few pairs to show it"
        source = LimitsSource(kind="calibrated", at=utc_now(), pairs=self.pairs, note=note)
        return self.record.model_copy(update={"limits": self.proposal.limits, "source": source})


def calibrate_space(
    loaded: LoadedModel, record: SpaceRecord, folder: Path, size: GallerySize, api: ApiClient | None
) -> Calibration:
    """Measure the photographs in `folder` and propose the limits of `record`.

    With `api` the gallery of the registry is compared, too. Raises CannotRunError.
    """
    from .measures.pair_scores import score_pairs  # noqa: PLC0415
    from .measures.proposal import propose_limits  # noqa: PLC0415
    from .measures.searches import search_all  # noqa: PLC0415
    from .report.evaluation import check_pairs  # noqa: PLC0415

    gallery = _read_gallery(api, record) if api else None
    faces = sample(loaded, read_photos(folder, []))
    scores = score_pairs(faces.vectors, faces.subjects)
    check_pairs(scores, faces)
    searches = search_all(faces.vectors, faces.vectors, faces.subjects)
    proposal = propose_limits(scores, searches, people=size.people, templates=size.templates, far=size.far)
    limits = record.limits
    return Calibration(
        record=record,
        size=size,
        proposal=proposal,
        subjects=len(set(faces.subjects.tolist())),
        pairs=len(scores.genuine) + scores.impostor_pairs,
        outcome=searches.outcome(proposal.limits),
        outcome_before=searches.outcome(limits) if limits else None,
        fit=_fit(gallery, proposal.limits),
        fit_before=_fit(gallery, limits) if limits else None,
    )


def _read_gallery(api: ApiClient, record: SpaceRecord) -> "EnrolledGallery":
    from .gallery_check import read_gallery  # noqa: PLC0415

    return call(api, lambda: read_gallery(api, record.space, record.dimension))


def _fit(gallery: "EnrolledGallery | None", limits: SpaceLimits) -> "GalleryFit | None":
    from .gallery_check import check_gallery  # noqa: PLC0415

    return None if gallery is None else check_gallery(gallery, limits.distance)


def check_record(record: SpaceRecord, loaded: LoadedModel, place: str) -> SpaceRecord:
    """Return `record`; raises CannotRunError if it is of another model."""
    space = loaded.embedder.space
    if record.dimension != space.dimension or record.model_sha256 not in (None, space.model_sha256):
        raise CannotRunError(
            f"{place} has {record.space} as another model ({record.dimension} dimensions): calibrate the "
            "model that cameras use, or record this one as another space with wfm-fleet model add"
        )
    return record


def print_calibration(console: Console, calibration: Calibration) -> None:
    """Print the limits, old and new, and what they decide."""
    record, proposal = calibration.record, calibration.proposal
    before = record.limits
    source = f" ({describe_source(record.source)})" if before else ""
    table = Table(title=f"Limits of {record.space}", title_justify="left")
    table.add_column("limit")
    table.add_column(f"now{source}", justify="right")
    table.add_column("proposed", justify="right")
    table.add_column("why")
    for name in SpaceLimits.model_fields:
        now = f"{getattr(before, name):g}" if before else "none"
        table.add_row(name, now, f"{getattr(proposal.limits, name):g}", proposal.reasons[name])
    console.print(table)
    console.print(_decisions(calibration))
    share = f"{proposal.genuine_share:.1%} of genuine pairs lie within the proposed limit of a match"
    console.print(f"{share}; {calibration.subjects} people, {proposal.impostor_pairs:,} impostor pairs")
    if calibration.fit is not None and calibration.fit.most_alike is not None:
        one, two, cosine = calibration.fit.most_alike
        console.print(
            Text(f"most alike of the people enrolled: {one} and {two} ({cosine:.3f})"), soft_wrap=True
        )


def _decisions(calibration: Calibration) -> Table:
    table = Table(title="What they decide", title_justify="left")
    table.add_column("")
    table.add_column("now", justify="right")
    table.add_column("proposed", justify="right")
    before, after = calibration.outcome_before, calibration.outcome
    for name, field in (
        ("photographs: right", "right"),
        ("photographs: wrong person", "wrong"),
        ("photographs: unknown", "unknown"),
        ("photographs: strangers taken for a person", "taken"),
    ):
        table.add_row(name, str(getattr(before, field)) if before else "-", str(getattr(after, field)))
    fit, fit_before = calibration.fit, calibration.fit_before
    if fit is not None:
        enrolled = (
            f"enrolled ({fit.people} people, {fit.templates} templates): pairs of two people that match"
        )
        now = f"{fit_before.matching:,} of {fit_before.pairs:,}" if fit_before else "-"
        table.add_row(enrolled, now, f"{fit.matching:,} of {fit.pairs:,}")
    return table


def refuse_objections(calibration: Calibration, *, force: bool) -> None:
    """Print what speaks against the limits, and exit with status 1 unless `force`."""
    objections = calibration.objections()
    for sentence in objections:
        typer.echo(sentence, err=True)
    if objections and not force:
        typer.echo("nothing was written; --force writes these limits all the same", err=True)
        raise typer.Exit(1)
