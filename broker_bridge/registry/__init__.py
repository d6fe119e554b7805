"""MongoDB: the only place that imports the driver. `Registry.open` is the door."""

from dataclasses import dataclass

from .api_keys import ApiKeys
from .audit import Audit
from .commands import Commands
from .dead_letters import DeadLetters
from .devices import Devices
from .events import Events
from .failures import RegistryError
from .identities import Identities
from .indexes import Retention, ensure_indexes
from .jobs import Jobs
from .mongo import Mongo, MongoSettings, RegistryUnavailableError
from .registrations import Registrations
from .sites import Sites
from .spaces import Spaces
from .versions import Versions


@dataclass(frozen=True)
class Registry:
    """Every collection by its noun."""

    mongo: Mongo
    versions: Versions
    spaces: Spaces
    identities: Identities
    registrations: Registrations
    sites: Sites
    devices: Devices
    commands: Commands
    jobs: Jobs
    events: Events
    dead_letters: DeadLetters
    api_keys: ApiKeys
    audit: Audit

    @classmethod
    async def open(cls, settings: MongoSettings, retention: Retention | None = None) -> "Registry":
        """A checked registry with its indexes; raises RegistryUnavailableError with one sentence.

        Who passes no `retention` leaves it as it is: it is the bridge's to set.
        """
        mongo = Mongo(settings)
        try:
            await mongo.check()
            await ensure_indexes(mongo, retention)
            versions = Versions(mongo)
            await versions.ensure()
        except BaseException:
            await mongo.close()
            raise
        spaces = Spaces(mongo)
        audit = Audit(mongo)
        identities = Identities(mongo, versions, spaces)
        sites = Sites(mongo, audit)
        return cls(
            mongo=mongo,
            versions=versions,
            spaces=spaces,
            identities=identities,
            registrations=Registrations(mongo, identities, sites, audit),
            sites=sites,
            devices=Devices(mongo, sites),
            commands=Commands(mongo, audit),
            jobs=Jobs(mongo, audit),
            events=Events(mongo),
            dead_letters=DeadLetters(mongo),
            api_keys=ApiKeys(mongo),
            audit=audit,
        )

    async def close(self) -> None:
        await self.mongo.close()


__all__ = ["MongoSettings", "Registry", "RegistryError", "RegistryUnavailableError", "Retention"]
