"""`/api/v1/sites`: the places whose cameras share a gallery, and whom their devices register."""

from typing import Annotated

from fastapi import APIRouter

from broker_bridge.contract.ids import SiteId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.sites import Site
from dashboard_api.devices.views import SiteList, SitePatch, SiteView
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.problems import Problem, not_found
from dashboard_api.services.security import MAY_ADMINISTER, MAY_READ
from dashboard_api.services.services import Services, ServicesDep

router = APIRouter(prefix="/api/v1/sites", tags=["devices"])


@router.get("", dependencies=[MAY_READ])
async def list_sites(services: ServicesDep) -> SiteList:
    """Sites with the number of their devices and the newest version that concerns them."""
    placed = [applied.site_id for applied in await services.registry.devices.applied_versions()]
    sites = await services.registry.sites.all()
    return SiteList(items=[await _view(services, site, placed.count(site.site_id)) for site in sites])


@router.patch("/{site_id}", dependencies=[JSON_BODY])
async def change(
    site_id: SiteId, body: SitePatch, services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]
) -> SiteView:
    """Open a site to visitors or to employees, or close it; its cameras hear at once whether to visitors."""
    settings = body.model_dump(exclude_unset=True)
    if not settings:
        raise Problem(422, "request-invalid", f"name what is to change: {', '.join(SitePatch.model_fields)}")
    site = await services.registry.sites.change(site_id, settings, by=key.name, at=services.now())
    if site is None:
        raise not_found(f"site {site_id}")
    return await _view(services, site, len(await services.registry.devices.applied_versions([site_id])))


async def _view(services: Services, site: Site, devices: int) -> SiteView:
    return SiteView(
        site_id=site.site_id,
        enrollment_policy=site.enrollment_policy,
        registers_employees=site.registers_employees,
        devices=devices,
        head_version=await services.overview.site_head(site.site_id),
    )
