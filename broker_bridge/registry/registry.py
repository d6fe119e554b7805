"""Open the registry: every collection, wired once."""

from dataclasses import dataclass

from .api_keys import ApiKeys
from .audit import Audit
from .detected_persons.edits import DetectedPersonEdits
from .detected_persons.merge_groups import MergeGroups
from .detected_persons.queries import DetectedPersonQueries
from .detected_persons.removal import DetectedPersonRemoval
from .detected_persons.search.engine import FaceSearch
from .detected_persons.search.memory import InMemoryFaceSearch
from .detected_persons.search.mongodb import MongoVectorSearch
from .detected_persons.settings import SearchSettings
from .detected_persons.tracker_store import TrackerStore
from .devices.commands import CommandQueue
from .devices.devices import DeviceRegistry
from .devices.sites import Sites
from .edge_registration.decisions import RegistrationDecisions
from .edge_registration.service import EdgeRegistration
from .events.attendance import AttendanceQueries
from .events.dead_letters import DeadLetters
from .events.events import EventStore
from .events.pseudonyms import Pseudonyms
from .identities.dry_run import DryRunStore
from .identities.merging import IdentityMerges
from .identities.service import Identities
from .identities.store import IdentityStore
from .jobs.queue import JobQueue
from .matching.identity_index import IdentityIndexes
from .matching.look_alikes import LookAlikes
from .mongo.client import Mongo, MongoSettings
from .mongo.schema import Retention, ensure_indexes
from .mongo.versions import Versions
from .privacy.erasures import Erasures
from .privacy.export import PersonalDataExport
from .privacy.sweep import ErasureSweep
from .privacy.tombstones import Tombstones
from .settings import RegistrySettings
from .spaces import SpaceRegistry
from .sync.changes import DeltaQueries
from .sync.polling import EdgePolling


@dataclass(frozen=True)
class Registry:
    """Every collection by its noun."""

    mongo: Mongo
    versions: Versions
    spaces: SpaceRegistry
    identities: Identities
    identity_merges: IdentityMerges
    erasures: Erasures
    personal_data_export: PersonalDataExport
    tombstones: Tombstones
    deltas: DeltaQueries
    edge_polling: EdgePolling
    identity_indexes: IdentityIndexes
    look_alikes: LookAlikes
    dry_run: LookAlikes
    identity_store: IdentityStore
    tracker_store: TrackerStore
    face_search: FaceSearch
    detected_person_queries: DetectedPersonQueries
    detected_person_edits: DetectedPersonEdits
    detected_person_removal: DetectedPersonRemoval
    registration_decisions: RegistrationDecisions
    edge_registration: EdgeRegistration
    sites: Sites
    devices: DeviceRegistry
    commands: CommandQueue
    jobs: JobQueue
    events: EventStore
    attendance: AttendanceQueries
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
        persons = TrackerStore(mongo)
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
        persons: TrackerStore,
        faces: FaceSearch,
        settings: RegistrySettings,
    ) -> "Registry":
        """Every collection with what it needs of the others."""
        spaces = SpaceRegistry(mongo)
        audit = Audit(mongo)
        store = IdentityStore(mongo)
        identities = Identities(store, versions, spaces, audit, settings.rules)
        changes = DeltaQueries(store, versions, spaces)
        indexes = IdentityIndexes(changes)
        sites = Sites(mongo, audit)
        devices = DeviceRegistry(mongo, sites, audit)
        pseudonyms = Pseudonyms(mongo)
        events = EventStore(mongo, pseudonyms)
        dead_letters = DeadLetters(mongo)
        groups = MergeGroups(mongo)
        person_reading = DetectedPersonQueries(mongo, groups, store)
        person_removal = DetectedPersonRemoval(mongo, groups, audit)
        erasures = Erasures(
            mongo,
            store=store,
            versions=versions,
            devices=devices,
            events=events,
            audit=audit,
            pseudonyms=pseudonyms,
            sweep=ErasureSweep(mongo, events, dead_letters, pseudonyms, person_removal),
            detected=person_reading,
        )
        registrations = RegistrationDecisions(mongo, identities, sites)
        return cls(
            mongo=mongo,
            versions=versions,
            spaces=spaces,
            identities=identities,
            identity_merges=IdentityMerges(store, versions, audit, settings.rules),
            erasures=erasures,
            personal_data_export=PersonalDataExport(
                mongo, store=store, events=events, erasures=erasures, audit=audit, detected=person_reading
            ),
            tombstones=Tombstones(store, versions, audit, person_removal),
            deltas=changes,
            edge_polling=EdgePolling(mongo, versions, changes),
            identity_indexes=indexes,
            look_alikes=LookAlikes(
                identities=identities, store=store, spaces=spaces, indexes=indexes, settings=settings
            ),
            dry_run=LookAlikes(
                identities=Identities(DryRunStore(mongo), versions, spaces, audit, settings.rules),
                store=store,
                spaces=spaces,
                indexes=indexes,
                settings=settings,
                is_rehearsal=True,
            ),
            identity_store=store,
            tracker_store=persons,
            face_search=faces,
            detected_person_queries=person_reading,
            detected_person_edits=DetectedPersonEdits(
                mongo, groups=groups, removal=person_removal, people=store, audit=audit
            ),
            detected_person_removal=person_removal,
            registration_decisions=registrations,
            edge_registration=EdgeRegistration(
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
            commands=CommandQueue(mongo, audit),
            jobs=JobQueue(mongo, audit),
            events=events,
            attendance=AttendanceQueries(mongo, store),
            dead_letters=dead_letters,
            api_keys=ApiKeys(mongo),
            audit=audit,
        )

    async def close(self) -> None:
        await self.mongo.close()


async def _face_search(mongo: Mongo, persons: TrackerStore, settings: SearchSettings) -> FaceSearch:
    """The configured engine; raises RegistryUnavailableError where the deployment does not have it."""
    if settings.engine == "memory":
        return InMemoryFaceSearch(mongo, persons)
    search = MongoVectorSearch(mongo, settings.index)
    await search.check()
    return search
