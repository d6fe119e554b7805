"""MongoDB: the only place that imports the driver. `Registry.open` is the door."""

from dataclasses import dataclass

from .api_keys import ApiKeys
from .audit import Audit
from .detected_persons.edits import PersonChanges
from .detected_persons.merge_groups import Families
from .detected_persons.queries import PersonReading
from .detected_persons.removal import PersonRemoval
from .detected_persons.search.engine import FaceSearch
from .detected_persons.search.memory import FaceIndex
from .detected_persons.search.mongodb import VectorSearch
from .detected_persons.settings import SearchSettings
from .detected_persons.tracker_store import PersonStore
from .devices.commands import Commands
from .devices.devices import Devices
from .devices.sites import Sites
from .edge_registration.decisions import Registrations
from .edge_registration.service import Admissions
from .events.attendance import Visits
from .events.dead_letters import DeadLetters
from .events.events import Events
from .events.pseudonyms import Pseudonyms
from .identities.dry_run import RehearsalStore
from .identities.merging import Merges
from .identities.service import Identities
from .identities.store import PeopleStore
from .jobs.queue import Jobs
from .matching.identity_index import PeopleIndexes
from .matching.look_alikes import LookAlikes
from .mongo.client import Mongo, MongoSettings, RegistryUnavailableError
from .mongo.errors import RegistryError
from .mongo.schema import Retention, ensure_indexes
from .mongo.versions import Versions
from .privacy.erasures import Erasures
from .privacy.export import Exports
from .privacy.sweep import Sweep
from .privacy.tombstones import Tombstones
from .settings import RegistrySettings
from .spaces import Spaces
from .sync.changes import Changes
from .sync.polling import EdgeSync


@dataclass(frozen=True)
class Registry:
    """Every collection by its noun."""

    mongo: Mongo
    versions: Versions
    spaces: Spaces
    identities: Identities
    merges: Merges
    erasures: Erasures
    exports: Exports
    tombstones: Tombstones
    changes: Changes
    edge_sync: EdgeSync
    indexes: PeopleIndexes
    look_alikes: LookAlikes
    rehearsal: LookAlikes
    people: PeopleStore
    persons: PersonStore
    faces: FaceSearch
    person_reading: PersonReading
    person_changes: PersonChanges
    person_removal: PersonRemoval
    registrations: Registrations
    admissions: Admissions
    sites: Sites
    devices: Devices
    commands: Commands
    jobs: Jobs
    events: Events
    visits: Visits
    dead_letters: DeadLetters
    api_keys: ApiKeys
    audit: Audit

    @classmethod
    async def open(
        cls,
        mongo_settings: MongoSettings,
        retention: Retention | None = None,
        settings: RegistrySettings | None = None,
        search: SearchSettings | None = None,
    ) -> "Registry":
        """A checked registry with its indexes; raises RegistryUnavailableError with one sentence.

        Who passes no `retention` leaves it as it is: it is the bridge's to set.
        """
        settings = settings or RegistrySettings()
        mongo = Mongo(mongo_settings)
        persons = PersonStore(mongo)
        try:
            await mongo.check()
            await ensure_indexes(mongo, retention)
            faces = await _face_search(mongo, persons, search or SearchSettings())
            versions = Versions(mongo)
            await versions.ensure()
        except BaseException:
            await mongo.close()
            raise
        return cls._wired(mongo, versions, persons, faces, settings)

    @classmethod
    def _wired(
        cls,
        mongo: Mongo,
        versions: Versions,
        persons: PersonStore,
        faces: FaceSearch,
        settings: RegistrySettings,
    ) -> "Registry":
        """Every collection with what it needs of the others."""
        spaces = Spaces(mongo)
        audit = Audit(mongo)
        store = PeopleStore(mongo)
        identities = Identities(store, versions, spaces, audit, settings.rules)
        changes = Changes(store, versions, spaces)
        indexes = PeopleIndexes(changes)
        sites = Sites(mongo, audit)
        devices = Devices(mongo, sites, audit)
        pseudonyms = Pseudonyms(mongo)
        events = Events(mongo, pseudonyms)
        dead_letters = DeadLetters(mongo)
        families = Families(mongo)
        person_reading = PersonReading(mongo, families, store)
        person_removal = PersonRemoval(mongo, families, audit)
        erasures = Erasures(
            mongo,
            store=store,
            versions=versions,
            devices=devices,
            events=events,
            audit=audit,
            pseudonyms=pseudonyms,
            sweep=Sweep(mongo, events, dead_letters, pseudonyms, person_removal),
            detected=person_reading,
        )
        registrations = Registrations(mongo, identities, sites)
        return cls(
            mongo=mongo,
            versions=versions,
            spaces=spaces,
            identities=identities,
            merges=Merges(store, versions, audit, settings.rules),
            erasures=erasures,
            exports=Exports(
                mongo, store=store, events=events, erasures=erasures, audit=audit, detected=person_reading
            ),
            tombstones=Tombstones(store, versions, audit, person_removal),
            changes=changes,
            edge_sync=EdgeSync(mongo, versions, changes),
            indexes=indexes,
            look_alikes=LookAlikes(
                identities=identities, store=store, spaces=spaces, indexes=indexes, settings=settings
            ),
            rehearsal=LookAlikes(
                identities=Identities(RehearsalStore(mongo), versions, spaces, audit, settings.rules),
                store=store,
                spaces=spaces,
                indexes=indexes,
                settings=settings,
                is_rehearsal=True,
            ),
            people=store,
            persons=persons,
            faces=faces,
            person_reading=person_reading,
            person_changes=PersonChanges(
                mongo, families=families, removal=person_removal, people=store, audit=audit
            ),
            person_removal=person_removal,
            registrations=registrations,
            admissions=Admissions(
                registrations=registrations,
                people=store,
                indexes=indexes,
                devices=devices,
                sites=sites,
                spaces=spaces,
                events=events,
                settings=settings,
            ),
            sites=sites,
            devices=devices,
            commands=Commands(mongo, audit),
            jobs=Jobs(mongo, audit),
            events=events,
            visits=Visits(mongo, store),
            dead_letters=dead_letters,
            api_keys=ApiKeys(mongo),
            audit=audit,
        )

    async def close(self) -> None:
        await self.mongo.close()


async def _face_search(mongo: Mongo, persons: PersonStore, settings: SearchSettings) -> FaceSearch:
    """The configured engine; raises RegistryUnavailableError where the deployment does not have it."""
    if settings.engine == "memory":
        return FaceIndex(mongo, persons)
    search = VectorSearch(mongo, settings.index)
    await search.check()
    return search


__all__ = ["MongoSettings", "Registry", "RegistryError", "RegistryUnavailableError", "Retention"]
