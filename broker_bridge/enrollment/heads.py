"""Compute each site's head, change by change and without I/O."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import SpaceHead, SyncHead
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.registry.devices.sites import CLOSED, Site
from broker_bridge.registry.identities.model import EVERY_SITE, Identity
from broker_bridge.registry.mongo.versions import History

_Totals = dict[str, Digest]
# Of each site: a device confirms a version within moments, or at a later one.
_KEPT_VERSIONS = 1024
# The key of the number of identities in any space; no space has this name.
_EVERY_SPACE = ""
_RECORDED = ("model_sha256", "dimension", "detector", "alignment", "limits")


class HeadLedger:
    """Counts and digests of every site, from identities in the order of versions."""

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        # By entry of `sites`, so that "*" is counted once and not once per site.
        self._totals: dict[str, _Totals] = defaultdict(dict)
        self._people: dict[str, Counter[str]] = defaultdict(Counter)
        self._versions: dict[str, int] = defaultdict(int)
        self._counted: dict[str, Identity] = {}
        self._past: dict[str, deque[tuple[int, _Totals]]] = {}
        for identity in identities:
            self._replace(identity)
        for entry in {EVERY_SITE, *self._totals, *self._versions}:
            self._note(entry, self._versions.get(entry, 0))

    def update(self, identity: Identity) -> None:
        """Replace what is counted for an identity by its new state."""
        for entry in self._replace(identity):
            self._past.setdefault(entry, deque([(0, {})], _KEPT_VERSIONS))
            self._note(entry, identity.version)

    def _note(self, entry: str, version: int) -> None:
        past = self._past.setdefault(entry, deque(maxlen=_KEPT_VERSIONS))
        past.append((version, dict(self._totals.get(entry, {}))))

    def _replace(self, identity: Identity) -> set[str]:
        """Count the new state and return the entries that it concerns."""
        before = self._counted.pop(identity.user_id, None)
        if before is not None:
            self._count(before, Digest.minus, -1)
        if not identity.deleted:
            self._count(identity, Digest.plus, 1)
            self._counted[identity.user_id] = identity
        for site in identity.synced_sites:
            self._versions[site] = max(self._versions[site], identity.version)
        return {*identity.synced_sites, *identity.sites, *(before.sites if before else ())}

    def digests_at(self, site_id: str, version: int) -> dict[str, Digest] | None:
        """Return what a device of the site has at a version; None if that is not kept."""
        digests: dict[str, Digest] = {}
        for entry in (EVERY_SITE, site_id):
            past = self._past.get(entry, ())
            totals = next((totals for noted, totals in reversed(past) if noted <= version), None)
            if totals is None and past:
                return None
            for space, digest in (totals or {}).items():
                digests[space] = digests.get(space, Digest()).plus(digest)
        return digests

    def version(self, site_id: str) -> int:
        """Return the version of the site's latest change, 0 if there was none."""
        return max(self._versions.get(site_id, 0), self._versions.get(EVERY_SITE, 0))

    def head(self, site: Site, history: History, records: Mapping[str, SpaceRecord]) -> SyncHead:
        """Return the head of a site; `records` are the spaces with the limits that hold.

        A space with a model or limits on record is named even while it has no template: a device with
        another model learns of the difference before the first enrollment. Only the built-in space is left
        out then: devices with that model have its record.
        """
        recorded = [
            space
            for space, record in records.items()
            if (record.model_sha256 or record.limits) and record != DEFAULT_FACE_SPACE
        ]
        spaces = dict.fromkeys(recorded, Digest())
        people: Counter[str] = Counter()
        for entry in (EVERY_SITE, site.site_id):
            people.update(self._people.get(entry, {}))
            for space, digest in self._totals.get(entry, {}).items():
                spaces[space] = spaces.get(space, Digest()).plus(digest)
        horizon = history.horizon_at(site.site_id)
        return SyncHead(
            epoch=history.epoch,
            # The latest change may have been a removal that was purged since.
            version=max(self.version(site.site_id), horizon),
            horizon=horizon,
            spaces={
                space: _space_head(digest, records.get(space), people[space])
                for space, digest in sorted(spaces.items())
                if digest.count or space in recorded
            },
            people=people[_EVERY_SPACE],
            # Omitted while closed: heads had no policy at first, and closed is the default.
            enrollment_policy=None if site.enrollment_policy == CLOSED else site.enrollment_policy,
        )

    def _count(self, identity: Identity, combine: Callable[[Digest, Digest], Digest], people: int) -> None:
        for site in (EVERY_SITE,) if EVERY_SITE in identity.sites else identity.sites:
            totals = self._totals[site]
            self._people[site][_EVERY_SPACE] += people
            for holding in identity.sent_holdings:
                self._people[site][holding.space] += people
                totals[holding.space] = combine(totals.get(holding.space, Digest()), holding.digest)


def _space_head(digest: Digest, record: SpaceRecord | None, people: int) -> SpaceHead:
    known = {} if record is None else {name: getattr(record, name) for name in _RECORDED}
    return SpaceHead(count=digest.count, digest=digest.hex, people=people, **known)


def select_affected_sites(identity: Identity, sites: Sequence[str]) -> list[str]:
    """Return those of `sites` that receive changes of this identity."""
    if EVERY_SITE in identity.synced_sites:
        return list(sites)
    return [site for site in sites if site in identity.synced_sites]
