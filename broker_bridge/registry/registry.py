"""Open the registry: check the deployment and wire all services once."""

from dataclasses import dataclass

from .detected_persons.search.engine import FaceSearch
from .detected_persons.search.memory import InMemoryFaceSearch
from .detected_persons.search.mongodb import MongoVectorSearch
from .detected_persons.settings import SearchSettings
from .detected_persons.tracker_store import TrackerStore
from .events.admission import EventAdmission
from .identities.similar_ids import add_missing_keys
from .mongo.client import Mongo, MongoSettings
from .mongo.schema import Retention, ensure_indexes
from .mongo.versions import Versions
from .services import (
    CoreServices,
    DetectedPersonServices,
    DeviceServices,
    EdgeRegistrationServices,
    EventServices,
    IdentityServices,
    PrivacyServices,
    wire_core,
    wire_detected_persons,
    wire_devices,
    wire_edge_registration,
    wire_events,
    wire_identities,
    wire_privacy,
)
from .settings import RegistrySettings


@dataclass(frozen=True)
class Registry(
    CoreServices,
    IdentityServices,
    DeviceServices,
    EventServices,
    EdgeRegistrationServices,
    DetectedPersonServices,
    PrivacyServices,
):
    """All services of the registry.

    A component that needs one group takes that group as its type, and is tested with that group alone.
    """

    @classmethod
    async def open(
        cls,
        mongo_settings: MongoSettings,
        retention: Retention | None = None,
        settings: RegistrySettings | None = None,
        search: SearchSettings | None = None,
        event_admission: EventAdmission | None = None,
    ) -> "Registry":
        """Return a registry whose deployment is checked and whose indexes exist.

        Without `retention` the stored retention stays; the bridge sets it. Raises RegistryUnavailableError
        with one sentence.
        """
        mongo = Mongo(mongo_settings)
        tracker_store = TrackerStore(mongo)
        versions = Versions(mongo)
        settings = settings or RegistrySettings()
        core = wire_core(mongo, versions, settings)
        try:
            await mongo.check()
            await ensure_indexes(mongo, retention)
            await add_missing_keys(mongo)
            face_search = await _open_face_search(mongo, tracker_store, search or SearchSettings())
            await versions.ensure()
            await core.api_keys.ensure_ids()
            event_admission = event_admission or EventAdmission()
            registry = cls._wire(core, tracker_store, face_search, settings, event_admission)
            # Here, so that the request to erase an unknown identity stores nothing.
            await registry.pseudonyms.ensure_key()
        except BaseException:
            await mongo.close()
            raise
        return registry

    @classmethod
    def _wire(
        cls,
        core: CoreServices,
        tracker_store: TrackerStore,
        face_search: FaceSearch,
        settings: RegistrySettings,
        event_admission: EventAdmission,
    ) -> "Registry":
        identities = wire_identities(core, settings)
        devices = wire_devices(core)
        events = wire_events(core, identities, event_admission)
        edge_registration = wire_edge_registration(core, identities, devices, events, settings)
        detected = wire_detected_persons(core, identities, tracker_store, face_search)
        privacy = wire_privacy(core, identities, devices, events, detected)
        groups = (core, identities, devices, events, edge_registration, detected, privacy)
        return cls(**{name: service for group in groups for name, service in vars(group).items()})

    async def close(self) -> None:
        await self.mongo.close()


async def _open_face_search(
    mongo: Mongo, tracker_store: TrackerStore, settings: SearchSettings
) -> FaceSearch:
    """Return the configured engine.

    Raises RegistryUnavailableError if the deployment lacks it.
    """
    if settings.engine == "memory":
        return InMemoryFaceSearch(mongo, tracker_store)
    search = MongoVectorSearch(mongo, settings.index)
    await search.check()
    return search
