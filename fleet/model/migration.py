"""Read the state of a migration from the API, and change it."""

import secrets
from collections.abc import Collection, Iterator
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict

from fleet.api_client import SPACES_PATH, ApiClient

_ITEMS_A_PAGE = 1000


class _MigrationBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MigrationStepItem(_MigrationBody):
    """A step of the migration; `detail` says what to do while it is open."""

    step: str
    done: bool
    detail: str


class MigratingSite(_MigrationBody):
    """People and cameras of a site; `site_id` is None for devices at no site."""

    site_id: str | None
    identities: int
    enrolled: int
    missing: int
    ready: bool
    on_old: list[str]
    on_new: list[str]
    elsewhere: list[str]
    warning: str | None


class MigrationAnswer(_MigrationBody):
    """The state of a migration, as the API tells it."""

    in_both: int
    only_old: int
    only_new: int
    withheld: int
    missing: int
    steps: list[MigrationStepItem]
    sites: list[MigratingSite]

    def open_steps(self, names: Collection[str]) -> list[MigrationStepItem]:
        """Return the steps of these names that are open, in their order."""
        return [step for step in self.steps if not step.done and step.step in names]


class SourceKey(_MigrationBody):
    source_system: str
    external_id: str


class MissingItem(_MigrationBody):
    """A person of the old space that has no template in the new one."""

    user_id: str
    kind: str
    sources: list[SourceKey]


class _MissingPage(_MigrationBody):
    items: list[MissingItem]
    next_cursor: str | None


class _Job(_MigrationBody):
    job_id: str


class MigrationApi:
    """The requests of a migration from `old` to `new`; each raises ApiRefusedError."""

    def __init__(self, api: ApiClient, old: str, new: str) -> None:
        self._api = api
        self._old = old
        self._path = f"{SPACES_PATH}/{quote(new, safe='')}/migration"

    def state(self) -> MigrationAnswer:
        """Return the state of the migration."""
        return self._api.get(MigrationAnswer, f"{self._path}?{urlencode({'from': self._old})}")

    def missing(self, site: str | None) -> Iterator[MissingItem]:
        """Yield the people to enroll, of one site or all, in order of user id."""
        query = {"from": self._old, "limit": str(_ITEMS_A_PAGE)} | ({"site": site} if site else {})
        while True:
            page = self._api.get(_MissingPage, f"{self._path}/missing?{urlencode(query)}")
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def submit_batch(self, source_system: str, batch_id: str) -> str:
        """Queue a job for embed workers and return its id."""
        body = {
            "job_type": "face_detect_embed",
            "config": {"source_system": source_system, "batch_id": batch_id},
            # A request that is sent again queues no second job.
            "submission_id": f"migrate-{secrets.token_hex(8)}",
        }
        return self._api.post(_Job, "/api/training/submit", body).job_id
