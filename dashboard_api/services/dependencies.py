"""Dependencies of routes: one annotated type per service of the app."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends

from broker_bridge.registry.api_keys import ApiKeys
from broker_bridge.registry.audit import Audit
from broker_bridge.registry.devices.commands import CommandQueue
from broker_bridge.registry.devices.devices import DeviceRegistry
from broker_bridge.registry.devices.placements import DevicePlacements
from broker_bridge.registry.devices.sites import Sites
from broker_bridge.registry.edge_registration.service import EdgeRegistration
from broker_bridge.registry.events.admission import EventAdmission
from broker_bridge.registry.events.attendance import AttendanceQueries
from broker_bridge.registry.events.events import EventStore
from broker_bridge.registry.events.feed import EventFeed
from broker_bridge.registry.identities.merging import IdentityMerges
from broker_bridge.registry.identities.service import Identities
from broker_bridge.registry.identities.similar_ids import SimilarIds
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.identities.template_notes import Overview
from broker_bridge.registry.jobs.queue import JobQueue
from broker_bridge.registry.matching.look_alikes import LookAlikes
from broker_bridge.registry.mongo.probe import ConnectionProbe
from broker_bridge.registry.mongo.versions import Versions
from broker_bridge.registry.privacy.erasures import Erasures
from broker_bridge.registry.privacy.export import PersonalDataExport
from broker_bridge.registry.space_migration import SpaceMigration
from broker_bridge.registry.space_removal import SpaceRemoval
from broker_bridge.registry.space_usage import SpaceUsage
from broker_bridge.registry.spaces import SpaceRegistry
from broker_bridge.registry.sync.epochs import Epochs
from broker_bridge.registry.sync.polling import EdgePolling
from dashboard_api.settings import ApiSettings

from .event_hub import EventHub
from .photos import PhotoService
from .services import Services, ServicesDep


def _from_services(select: Callable[[Services], Any]) -> Any:
    """Return a dependency on what `select` takes from the services of the app."""

    async def provide(services: ServicesDep) -> Any:
        return select(services)

    return Depends(provide)


ClockDep = Annotated[Callable[[], datetime], _from_services(lambda s: s.now)]
HubDep = Annotated[EventHub, _from_services(lambda s: s.hub)]
SimilarIdsDep = Annotated[SimilarIds, _from_services(lambda s: s.registry.similar_ids)]
OverviewDep = Annotated[Overview, _from_services(lambda s: s.overview)]
ProbeDep = Annotated[ConnectionProbe, _from_services(lambda s: s.probe)]
PhotosDep = Annotated[PhotoService | None, _from_services(lambda s: s.photos)]
SettingsDep = Annotated[ApiSettings, _from_services(lambda s: s.settings)]

ApiKeysDep = Annotated[ApiKeys, _from_services(lambda s: s.registry.api_keys)]
AttendanceDep = Annotated[AttendanceQueries, _from_services(lambda s: s.registry.attendance)]
AuditDep = Annotated[Audit, _from_services(lambda s: s.registry.audit)]
CommandsDep = Annotated[CommandQueue, _from_services(lambda s: s.registry.commands)]
PlacementsDep = Annotated[DevicePlacements, _from_services(lambda s: s.registry.placements)]
DevicesDep = Annotated[DeviceRegistry, _from_services(lambda s: s.registry.devices)]
DryRunDep = Annotated[LookAlikes, _from_services(lambda s: s.registry.dry_run)]
EpochsDep = Annotated[Epochs, _from_services(lambda s: s.registry.epochs)]
EdgePollingDep = Annotated[EdgePolling, _from_services(lambda s: s.registry.edge_polling)]
EdgeRegistrationDep = Annotated[EdgeRegistration, _from_services(lambda s: s.registry.edge_registration)]
ErasuresDep = Annotated[Erasures, _from_services(lambda s: s.registry.erasures)]
EventAdmissionDep = Annotated[EventAdmission, _from_services(lambda s: s.registry.event_admission)]
EventsDep = Annotated[EventStore, _from_services(lambda s: s.registry.events)]
EventFeedDep = Annotated[EventFeed, _from_services(lambda s: s.registry.event_feed)]
ExportsDep = Annotated[PersonalDataExport, _from_services(lambda s: s.registry.personal_data_export)]
IdentitiesDep = Annotated[Identities, _from_services(lambda s: s.registry.identities)]
IdentityStoreDep = Annotated[IdentityStore, _from_services(lambda s: s.registry.identity_store)]
JobsDep = Annotated[JobQueue, _from_services(lambda s: s.registry.jobs)]
LookAlikesDep = Annotated[LookAlikes, _from_services(lambda s: s.registry.look_alikes)]
MergesDep = Annotated[IdentityMerges, _from_services(lambda s: s.registry.identity_merges)]
SitesDep = Annotated[Sites, _from_services(lambda s: s.registry.sites)]
SpacesDep = Annotated[SpaceRegistry, _from_services(lambda s: s.registry.spaces)]
SpaceMigrationDep = Annotated[SpaceMigration, _from_services(lambda s: s.registry.space_migration)]
SpaceRemovalDep = Annotated[SpaceRemoval, _from_services(lambda s: s.registry.space_removal)]
SpaceUsageDep = Annotated[SpaceUsage, _from_services(lambda s: s.registry.space_usage)]
VersionsDep = Annotated[Versions, _from_services(lambda s: s.registry.versions)]
