"""The device that sends a request to `/api/edge`, known by its API key."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from broker_bridge.contract.errors import DEVICE_UNKNOWN
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.devices.model import Device
from dashboard_api.http.problems import Problem
from dashboard_api.services.dependencies import DevicesDep
from dashboard_api.services.security import allow


@dataclass(frozen=True)
class EdgeDevice:
    """The device of an API key, with the embedding spaces that it has declared."""

    device: Device
    spaces: tuple[str, ...] = ()


async def get_caller(key: Annotated[ApiKey, Depends(allow("edge"))], devices: DevicesDep) -> EdgeDevice:
    """Return the device of the API key; raise Problem 403."""
    if key.device_id is None:
        detail = "this key has no device: python -m dashboard_api new-key NAME --role edge --device DEVICE"
        raise Problem(403, "key-without-device", detail)
    found = await devices.get(key.device_id)
    device = found.registered if found else None
    if found is None or device is None:
        raise Problem(403, DEVICE_UNKNOWN, f"{key.device_id}, the device of this key, is not registered")
    return EdgeDevice(device, tuple(sorted(found.declared_spaces)))


CallerDep = Annotated[EdgeDevice, Depends(get_caller)]
