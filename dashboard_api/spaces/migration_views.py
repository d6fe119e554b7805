"""Answers about a migration from one space to another."""

from typing import Annotated

from pydantic import Field

from broker_bridge.registry.identities.model import Identity, Kind
from broker_bridge.registry.space_migration import SiteMigration
from dashboard_api.http.base_models import View

from .migration_steps import Migration, StepName


class MigrationStepView(View):
    """One step of a migration."""

    step: StepName = Field(description="The name of the step.")
    done: bool = Field(description="Whether the step is done.")
    detail: str = Field(description="What is the case, and what to do while the step is open.")


class SiteMigrationView(View):
    """The people and cameras of a site during a migration."""

    site_id: str | None = Field(description="The site; null for devices that are registered at none.")
    identities: int = Field(description="Identities in either space whose templates may be sent to cameras.")
    enrolled: int = Field(description="Those of them in the new space.")
    missing: int = Field(description="Those of them in the old space alone.")
    ready: bool = Field(description="Whether its cameras may change to the new space.")
    on_old: list[str] = Field(description="The devices that declare the old space.")
    on_new: list[str] = Field(description="The devices that declare the new space, and not the old one.")
    elsewhere: list[str] = Field(description="The devices that declare neither.")
    warning: str | None = Field(description="A sentence about cameras that changed too early; null if none.")


class MigrationView(View):
    """How far a migration is: people and cameras of two spaces, and the steps.

    Identities, sites and devices are read one after the other: a change meanwhile may show in one of them.
    """

    old: str = Field(description="The space that is left.")
    new: str = Field(description="The space that replaces it.")
    in_both: int = Field(description="Identities enrolled in both spaces.")
    only_old: int = Field(description="Identities enrolled in the old space alone.")
    only_new: int = Field(description="Identities enrolled in the new space alone.")
    withheld: int = Field(description="Those of `only_old` without consent, which are not enrolled again.")
    missing: int = Field(description="Those of `only_old` to enroll in the new space.")
    api_space: str | None = Field(description="The space that the API enrolls into; null for none.")
    old_is_default: bool = Field(description="Whether the API still enrolls into the old space.")
    steps: list[MigrationStepView] = Field(description="The steps in their order.")
    sites: list[SiteMigrationView] = Field(description="The sites in order of id.")


class IdentitySourceView(View):
    source_system: str
    external_id: str = Field(description="The id of the identity in the other system.")


class MissingIdentity(View):
    """An identity in the old space that has no template in the new one."""

    user_id: str
    kind: Kind
    sources: list[IdentitySourceView] = Field(description="Other systems that have the person, if any.")


MissingItems = Annotated[list[MissingIdentity], Field(description="The identities, in order of user id.")]


class MissingPage(View):
    items: MissingItems
    next_cursor: str | None


def to_migration_view(migration: Migration) -> MigrationView:
    state = migration.state
    return MigrationView(
        old=migration.old,
        new=migration.new.space,
        in_both=state.in_both,
        only_old=state.only_old,
        only_new=state.only_new,
        withheld=state.withheld,
        missing=state.missing,
        api_space=migration.api_space,
        old_is_default=migration.api_space == migration.old,
        steps=[MigrationStepView(**vars(step)) for step in migration.steps()],
        sites=[_to_site(migration, site) for site in state.sites],
    )


def _to_site(migration: Migration, site: SiteMigration) -> SiteMigrationView:
    return SiteMigrationView(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in vars(site).items()},
        missing=site.missing,
        ready=migration.is_ready(site),
        warning=migration.warning(site),
    )


def to_missing(identity: Identity) -> MissingIdentity:
    return MissingIdentity(
        user_id=identity.user_id,
        kind=identity.kind,
        sources=[
            IdentitySourceView(source_system=key.source_system, external_id=key.external_id)
            for key in identity.external
        ],
    )
