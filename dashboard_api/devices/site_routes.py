"""Routes of `/api/v1/sites`: cameras of a site share a gallery and policies."""

from typing import Annotated

from fastapi import APIRouter

from broker_bridge.contract.ids import SiteId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.sites import Site
from dashboard_api.devices.views import SiteList, SitePatch, SiteView
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.problems import Problem, not_found
from dashboard_api.services.dependencies import ClockDep, DevicesDep, OverviewDep, SitesDep
from dashboard_api.services.security import MAY_ADMINISTER, MAY_READ

router = APIRouter(prefix="/api/v1/sites", tags=["devices"])


@router.get("", dependencies=[MAY_READ])
async def list_sites(sites: SitesDep, devices: DevicesDep, overview: OverviewDep) -> SiteList:
    """List sites with their number of devices and newest version."""
    site_ids = [applied.site_id for applied in await devices.applied_versions()]
    views = [
        _to_view(site, site_ids.count(site.site_id), await overview.site_head(site.site_id))
        for site in await sites.all()
    ]
    return SiteList(items=views)


@router.patch("/{site_id}", dependencies=[JSON_BODY])
async def change(
    *,
    site_id: SiteId,
    body: SitePatch,
    sites: SitesDep,
    devices: DevicesDep,
    overview: OverviewDep,
    now: ClockDep,
    key: Annotated[ApiKey, MAY_ADMINISTER],
) -> SiteView:
    """Open a site to the registration of visitors or employees, or close it.

    Its cameras receive the policy for visitors at once.
    """
    settings = body.model_dump(exclude_unset=True)
    if not settings:
        raise Problem(422, "request-invalid", f"name what is to change: {', '.join(SitePatch.model_fields)}")
    site = await sites.change(site_id, settings, by=key.name, at=now())
    if site is None:
        raise not_found(f"site {site_id}")
    device_count = len(await devices.applied_versions([site_id]))
    return _to_view(site, device_count, await overview.site_head(site_id))


def _to_view(site: Site, device_count: int, head_version: int) -> SiteView:
    return SiteView(
        site_id=site.site_id,
        enrollment_policy=site.enrollment_policy,
        registers_employees=site.registers_employees,
        devices=device_count,
        head_version=head_version,
    )
