"""`/api/v1/sites`: the places whose cameras share a gallery, and whether they register visitors."""

from typing import Annotated

from fastapi import APIRouter

from broker_bridge.contract.ids import SiteId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.sites import Site
from dashboard_api.deps import JSON_BODY, Services, ServicesDep
from dashboard_api.problems import not_found
from dashboard_api.security import MAY_ADMINISTER, MAY_READ
from dashboard_api.views import SiteList, SitePatch, SiteView

router = APIRouter(prefix="/api/v1/sites", tags=["devices"])


@router.get("", dependencies=[MAY_READ])
async def list_sites(services: ServicesDep) -> SiteList:
    """Sites with the number of their devices and the newest version that concerns them."""
    placed = [applied.site_id for applied in await services.registry.devices.applied()]
    sites = await services.registry.sites.all()
    return SiteList(items=[await _view(services, site, placed.count(site.site_id)) for site in sites])


@router.patch("/{site_id}", dependencies=[JSON_BODY])
async def change(
    site_id: SiteId, body: SitePatch, services: ServicesDep, key: Annotated[ApiKey, MAY_ADMINISTER]
) -> SiteView:
    """Open a site to visitors, or close it; its cameras hear of it at once."""
    site = await services.registry.sites.set_policy(
        site_id, body.enrollment_policy, who=key.name, at=services.now()
    )
    if site is None:
        raise not_found(f"site {site_id}")
    return await _view(services, site, len(await services.registry.devices.applied([site_id])))


async def _view(services: Services, site: Site, devices: int) -> SiteView:
    return SiteView(
        site_id=site.site_id,
        enrollment_policy=site.enrollment_policy,
        devices=devices,
        head_version=await services.overview.site_head(site.site_id),
    )
