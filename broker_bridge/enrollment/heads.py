"""What each site's head is, kept up change by change: pure bookkeeping over people, no I/O."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import SpaceHead, SyncHead
from broker_bridge.registry.devices.sites import CLOSED, Site
from broker_bridge.registry.identities.model import EVERY_SITE, Identity
from broker_bridge.registry.mongo.versions import History

_Totals = dict[str, Digest]


class HeadLedger:
    """Counts and digests of every site, from the people told to it in order of version."""

    def __init__(self, people: Iterable[Identity] = ()) -> None:
        # By entry of `sites`, so that "*" is kept once and not once per site.
        self._totals: dict[str, _Totals] = defaultdict(dict)
        self._versions: dict[str, int] = defaultdict(int)
        self._counted: dict[str, Identity] = {}
        for person in people:
            self.tell(person)

    def tell(self, person: Identity) -> None:
        """Replace what is counted for a person by their state now."""
        before = self._counted.pop(person.user_id, None)
        if before is not None:
            self._count(before, Digest.minus)
        if not person.deleted:
            self._count(person, Digest.plus)
            self._counted[person.user_id] = person
        for site in person.synced_sites:
            self._versions[site] = max(self._versions[site], person.version)

    def version(self, site_id: str) -> int:
        """The version of the site's latest change, 0 if there was none."""
        return max(self._versions.get(site_id, 0), self._versions.get(EVERY_SITE, 0))

    def head(self, site: Site, history: History, models: Mapping[str, str]) -> SyncHead:
        """The head to publish for a site; `models` are the SHA-256 on record by space.

        A space that has nobody yet is named too once its model is settled: a device with another one should
        know before anybody is enrolled.
        """
        spaces = dict.fromkeys(models, Digest())
        for totals in (self._totals.get(EVERY_SITE, {}), self._totals.get(site.site_id, {})):
            for space, digest in totals.items():
                spaces[space] = spaces.get(space, Digest()).plus(digest)
        horizon = history.horizon_at(site.site_id)
        return SyncHead(
            epoch=history.epoch,
            # The latest change may have been a removal that was purged since.
            version=max(self.version(site.site_id), horizon),
            horizon=horizon,
            spaces={
                space: SpaceHead(count=digest.count, digest=digest.hex, model_sha256=models.get(space))
                for space, digest in sorted(spaces.items())
                if digest.count or space in models
            },
            # Left out while closed, as it was before there was a choice.
            enrollment_policy=None if site.enrollment_policy == CLOSED else site.enrollment_policy,
        )

    def _count(self, person: Identity, how: Callable[[Digest, Digest], Digest]) -> None:
        for site in (EVERY_SITE,) if EVERY_SITE in person.sites else person.sites:
            totals = self._totals[site]
            for held in person.sent_holdings:
                totals[held.space] = how(totals.get(held.space, Digest()), held.digest)


def select_affected_sites(person: Identity, sites: Sequence[str]) -> list[str]:
    """Those of `sites` that a change of this person concerns."""
    return (
        list(sites)
        if EVERY_SITE in person.synced_sites
        else [site for site in sites if site in person.synced_sites]
    )
