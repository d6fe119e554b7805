"""Group the registry's services by area, and wire each group."""

from dataclasses import dataclass

from .api_keys import ApiKeys
from .audit import Audit
from .detected_persons.edits import DetectedPersonEdits
from .detected_persons.merge_groups import MergeGroups
from .detected_persons.queries import DetectedPersonQueries
from .detected_persons.removal import DetectedPersonRemoval
from .detected_persons.search.engine import FaceSearch
from .detected_persons.tracker_store import TrackerStore
from .devices.commands import CommandQueue
from .devices.devices import DeviceRegistry
from .devices.placements import DevicePlacements
from .devices.sites import Sites
from .edge_registration.decisions import RegistrationDecisions
from .edge_registration.service import EdgeRegistration
from .events.admission import EventAdmission
from .events.attendance import AttendanceQueries
from .events.dead_letters import DeadLetters
from .events.events import EventStore
from .events.feed import EventFeed
from .events.pseudonyms import Pseudonyms
from .identities.dry_run import DryRunStore
from .identities.merging import IdentityMerges
from .identities.service import Identities
from .identities.similar_ids import SimilarIds
from .identities.store import IdentityStore
from .jobs.queue import JobQueue
from .matching.identity_index import IdentityIndexes
from .matching.look_alikes import LookAlikes
from .mongo.client import Mongo
from .mongo.versions import Versions
from .privacy.erasures import Erasures
from .privacy.export import PersonalDataExport
from .privacy.sweep import ErasureSweep
from .privacy.tombstones import Tombstones
from .settings import RegistrySettings
from .space_migration import SpaceMigration
from .space_removal import SpaceRemoval
from .space_usage import SpaceUsage
from .spaces import SpaceRegistry
from .sync.changes import DeltaQueries
from .sync.epochs import Epochs
from .sync.polling import EdgePolling


@dataclass(frozen=True)
class CoreServices:
    """The services that all other groups use."""

    mongo: Mongo
    versions: Versions
    spaces: SpaceRegistry
    audit: Audit
    api_keys: ApiKeys
    jobs: JobQueue


@dataclass(frozen=True)
class IdentityServices:
    """Enrolled persons, their changes by version, and matching among them."""

    identity_store: IdentityStore
    identities: Identities
    identity_merges: IdentityMerges
    deltas: DeltaQueries
    epochs: Epochs
    edge_polling: EdgePolling
    identity_indexes: IdentityIndexes
    look_alikes: LookAlikes
    dry_run: LookAlikes
    similar_ids: SimilarIds


@dataclass(frozen=True)
class DeviceServices:
    """Sites, devices and commands."""

    sites: Sites
    devices: DeviceRegistry
    commands: CommandQueue
    placements: DevicePlacements


@dataclass(frozen=True)
class EventServices:
    """Events, attendance, and messages that could not be read."""

    pseudonyms: Pseudonyms
    events: EventStore
    event_feed: EventFeed
    event_admission: EventAdmission
    attendance: AttendanceQueries
    dead_letters: DeadLetters


@dataclass(frozen=True)
class EdgeRegistrationServices:
    """Registration of identities by devices."""

    registration_decisions: RegistrationDecisions
    edge_registration: EdgeRegistration


@dataclass(frozen=True)
class DetectedPersonServices:
    """Persons as cameras see them."""

    tracker_store: TrackerStore
    face_search: FaceSearch
    detected_person_queries: DetectedPersonQueries
    detected_person_edits: DetectedPersonEdits
    detected_person_removal: DetectedPersonRemoval


@dataclass(frozen=True)
class PrivacyServices:
    """Erasure, export and purge of personal data, and migration and removal of spaces."""

    erasures: Erasures
    personal_data_export: PersonalDataExport
    tombstones: Tombstones
    space_migration: SpaceMigration
    space_removal: SpaceRemoval
    space_usage: SpaceUsage


def wire_core(mongo: Mongo, versions: Versions, settings: RegistrySettings) -> CoreServices:
    audit = Audit(mongo)
    return CoreServices(
        mongo=mongo,
        versions=versions,
        spaces=SpaceRegistry(mongo, versions, audit, settings.limits),
        audit=audit,
        api_keys=ApiKeys(mongo, audit),
        jobs=JobQueue(mongo, audit),
    )


def wire_identities(core: CoreServices, settings: RegistrySettings) -> IdentityServices:
    store = IdentityStore(core.mongo)
    identities = Identities(store, core.versions, core.spaces, core.audit, settings.rules)
    deltas = DeltaQueries(store, core.versions, core.spaces)
    indexes = IdentityIndexes(deltas)
    dry_run_identities = Identities(
        DryRunStore(core.mongo), core.versions, core.spaces, core.audit, settings.rules
    )

    def look_alikes(changed: Identities, *, is_dry_run: bool) -> LookAlikes:
        return LookAlikes(
            identities=changed,
            store=store,
            spaces=core.spaces,
            indexes=indexes,
            settings=settings,
            is_dry_run=is_dry_run,
        )

    return IdentityServices(
        identity_store=store,
        identities=identities,
        similar_ids=SimilarIds(core.mongo),
        identity_merges=IdentityMerges(store, core.versions, core.audit, settings.rules),
        deltas=deltas,
        epochs=Epochs(core.mongo, core.versions, core.audit),
        edge_polling=EdgePolling(core.mongo, core.versions, deltas),
        identity_indexes=indexes,
        look_alikes=look_alikes(identities, is_dry_run=False),
        dry_run=look_alikes(dry_run_identities, is_dry_run=True),
    )


def wire_devices(core: CoreServices) -> DeviceServices:
    sites = Sites(core.mongo, core.audit)
    return DeviceServices(
        sites=sites,
        devices=DeviceRegistry(core.mongo, sites, core.audit),
        commands=CommandQueue(core.mongo, core.audit),
        placements=DevicePlacements(core.mongo, sites, core.audit, core.api_keys),
    )


def wire_events(
    core: CoreServices, identities: IdentityServices, event_admission: EventAdmission
) -> EventServices:
    pseudonyms, dead_letters = Pseudonyms(core.mongo), DeadLetters(core.mongo)
    return EventServices(
        pseudonyms=pseudonyms,
        events=EventStore(core.mongo, pseudonyms, dead_letters),
        event_feed=EventFeed(core.mongo, core.versions),
        event_admission=event_admission,
        attendance=AttendanceQueries(core.mongo, identities.identity_store),
        dead_letters=dead_letters,
    )


def wire_edge_registration(
    core: CoreServices,
    identities: IdentityServices,
    devices: DeviceServices,
    events: EventServices,
    settings: RegistrySettings,
) -> EdgeRegistrationServices:
    decisions = RegistrationDecisions(core.mongo, identities.identities, devices.sites)
    return EdgeRegistrationServices(
        registration_decisions=decisions,
        edge_registration=EdgeRegistration(
            registrations=decisions,
            identity_store=identities.identity_store,
            indexes=identities.identity_indexes,
            devices=devices.devices,
            sites=devices.sites,
            spaces=core.spaces,
            events=events.events,
            admission=events.event_admission,
            settings=settings,
        ),
    )


def wire_detected_persons(
    core: CoreServices, identities: IdentityServices, tracker_store: TrackerStore, face_search: FaceSearch
) -> DetectedPersonServices:
    groups = MergeGroups(core.mongo)
    removal = DetectedPersonRemoval(core.mongo, groups, core.audit)
    return DetectedPersonServices(
        tracker_store=tracker_store,
        face_search=face_search,
        detected_person_queries=DetectedPersonQueries(core.mongo, groups, identities.identity_store),
        detected_person_edits=DetectedPersonEdits(
            core.mongo, groups=groups, removal=removal, identities=identities.identity_store, audit=core.audit
        ),
        detected_person_removal=removal,
    )


def wire_privacy(
    core: CoreServices,
    identities: IdentityServices,
    devices: DeviceServices,
    events: EventServices,
    detected: DetectedPersonServices,
) -> PrivacyServices:
    store, removal = identities.identity_store, detected.detected_person_removal
    erasures = Erasures(
        core.mongo,
        store=store,
        versions=core.versions,
        devices=devices.devices,
        events=events.events,
        audit=core.audit,
        pseudonyms=events.pseudonyms,
        sweep=ErasureSweep(core.mongo, events.events, events.dead_letters, events.pseudonyms, removal),
        detected=detected.detected_person_queries,
    )
    return PrivacyServices(
        erasures=erasures,
        personal_data_export=PersonalDataExport(
            core.mongo,
            store=store,
            events=events.events,
            erasures=erasures,
            audit=core.audit,
            detected=detected.detected_person_queries,
        ),
        tombstones=Tombstones(store, core.versions, core.audit, removal),
        space_migration=SpaceMigration(store, core.audit),
        space_removal=SpaceRemoval(
            store,
            versions=core.versions,
            spaces=core.spaces,
            dead_letters=events.dead_letters,
            audit=core.audit,
        ),
        space_usage=SpaceUsage(core.mongo),
    )
