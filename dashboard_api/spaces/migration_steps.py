"""Decide which steps of a migration are done, and say what the next one needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.registry.identities.model import modality_of
from broker_bridge.registry.space_migration import MigrationState, SiteMigration

StepName = Literal["record", "api", "people", "cameras", "removal"]
_MANY = 5


@dataclass(frozen=True)
class MigrationStep:
    """One step. `detail` says what is the case, and what to do while the step is open."""

    step: StepName
    done: bool
    detail: str


@dataclass(frozen=True)
class Migration:
    """A migration from one space to another, as far as it is.

    `api_space` is where the API enrolls photos, and vectors that name no space. It `enrolls_photos` or is
    sent vectors alone.
    """

    old: str
    new: SpaceRecord
    state: MigrationState
    api_space: str | None
    is_removed: bool
    enrolls_photos: bool = True

    def steps(self) -> list[MigrationStep]:
        """Return the steps in their order."""
        return [self._record(), self._api(), self._people(), self._cameras(), self._removal()]

    @property
    def is_open_for_enrollment(self) -> bool:
        """Whether the new space has limits, and the API enrolls into it."""
        return self.new.limits is not None and self.api_space == self.new.space

    def is_ready(self, site: SiteMigration) -> bool:
        """Return whether the cameras of a site may change to the new space."""
        return self.is_open_for_enrollment and not site.missing

    def warning(self, site: SiteMigration) -> str | None:
        """Return a sentence about cameras that changed too early, or None."""
        if not site.on_new or self.is_ready(site):
            return None
        declare = (
            f"{_named(site.on_new)} {'declares' if len(site.on_new) == 1 else 'declare'} {self.new.space}"
        )
        if site.missing:
            return f"{declare} already, and {_people(site.missing)} of this site cannot be recognised there"
        return f"{declare} before the steps record and api are done"

    def _record(self) -> MigrationStep:
        new = self.new.space
        if self.new.limits is None:
            detail = (
                f"{new} has no limits, so nothing is matched in it: calibrate it (wfm-fleet model calibrate) "
                "or set registry.limits"
            )
            return MigrationStep("record", False, detail)
        kind = f" ({self.new.source.kind})" if self.new.source else ""
        return MigrationStep("record", True, f"{new} is on record with limits{kind}")

    def _api(self) -> MigrationStep:
        if self.api_space == self.new.space:
            return MigrationStep("api", True, f"the API enrolls into {self.new.space}")
        modality = modality_of(self.old)
        by_model = modality == "face" and self.enrolls_photos
        setting = "api.face_model" if by_model else f"api.default_spaces.{modality}"
        detail = (
            f"the API enrolls into {self.api_space or 'no space'}: set {setting} for {self.new.space} "
            "and start it again, before any camera"
        )
        return MigrationStep("api", False, detail)

    def _people(self) -> MigrationStep:
        state, old, new = self.state, self.old, self.new.space
        withheld = f"; {_people(state.withheld)} without consent left out" if state.withheld else ""
        if state.missing:
            are = "is" if state.missing == 1 else "are"
            detail = (
                f"{_people(state.missing)} of {state.in_both + state.missing} in {old} {are} not in {new} yet"
                f"{withheld}: enroll them again from their photos, or from the source that has them"
            )
            return MigrationStep("people", False, detail)
        if state.in_both:
            detail = f"{_people(state.in_both)} of {old} enrolled in {new} too{withheld}"
        else:
            detail = f"{old} has no people to enroll in {new}{withheld}"
        return MigrationStep("people", True, detail)

    def _cameras(self) -> MigrationStep:
        on_old = [device_id for site in self.state.sites for device_id in site.on_old]
        on_new = sum(len(site.on_new) for site in self.state.sites)
        early = [warning for site in self.state.sites if (warning := self.warning(site))]
        warned = f"; warning: {early[0]}" if early else ""
        if not on_old:
            return MigrationStep(
                "cameras",
                True,
                f"no device declares {self.old}, and {on_new} declare {self.new.space}{warned}",
            )
        ready = [
            site.site_id for site in self.state.sites if site.on_old and site.site_id and self.is_ready(site)
        ]
        may = f"ready to change: {_named(ready)}" if ready else "no site is ready to change"
        declare = "declares" if len(on_old) == 1 else "declare"
        detail = f"{_named(on_old)} {declare} {self.old}; {may}{warned}"
        return MigrationStep("cameras", False, detail)

    def _removal(self) -> MigrationStep:
        if self.is_removed:
            return MigrationStep("removal", True, f"{self.old} is removed")
        detail = f"{self.old} is still there: remove it once the other steps are done"
        return MigrationStep("removal", False, detail)


def _people(count: int) -> str:
    return f"{count} {'person' if count == 1 else 'people'}"


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MANY} more" if len(ids) > _MANY else ""
    return ", ".join(ids[:_MANY]) + more
