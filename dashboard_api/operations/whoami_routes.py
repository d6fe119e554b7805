"""Route of `/api/v1/whoami`: lets a program offer only what its key may do."""

from typing import Annotated

from fastapi import APIRouter, Depends

from broker_bridge.registry.api_keys import ApiKey, Role
from dashboard_api.http.base_models import View
from dashboard_api.services.security import authenticate

router = APIRouter(prefix="/api/v1/whoami", tags=["keys"])


class KeyView(View):
    name: str
    role: Role


@router.get("")
async def whoami(key: Annotated[ApiKey, Depends(authenticate)]) -> KeyView:
    """Show the name and the role of the API key."""
    return KeyView(name=key.name, role=key.role)
