"""Response bodies of erasures."""

from typing import Literal

from broker_bridge.registry.privacy.erasure import DeviceProof, Erasure
from dashboard_api.http.base_models import Time, View


class StepView(View):
    """How many documents a step has deleted or changed, and when last."""

    count: int
    at: Time


class DeviceProofView(View):
    """When a device confirmed; `gone`: it was unregistered before it confirmed."""

    device_id: str
    site_id: str
    state: Literal["confirmed", "gone", "waiting"]
    confirmed_at: Time | None


class ErasureRow(View):
    """An erasure in a list.

    It is complete when all devices that are not gone have confirmed, at least a minute after it began: until
    then messages about the identity can still be on their way.
    """

    erasure_id: str
    pseudonym: str
    requested_by: str
    requested_at: Time
    version: int
    state: Literal["open", "complete"]
    completed_at: Time | None
    summary: str


class ErasurePage(View):
    items: list[ErasureRow]
    next_cursor: str | None


class ErasureReceipt(ErasureRow):
    """The receipt: each step, and when each device confirmed its removal."""

    steps: dict[str, StepView]
    devices: list[DeviceProofView]


class ErasureStarted(ErasureReceipt):
    """The answer to an erase request, the only one with the user id."""

    user_id: str


def to_row(erasure: Erasure) -> ErasureRow:
    return ErasureRow(
        erasure_id=erasure.erasure_id,
        pseudonym=erasure.pseudonym,
        requested_by=erasure.requested_by,
        requested_at=erasure.requested_at,
        version=erasure.version,
        state=erasure.state,
        completed_at=erasure.completed_at,
        summary=f"{erasure.confirmed} of {len(erasure.devices)} devices",
    )


def to_receipt(erasure: Erasure) -> ErasureReceipt:
    return ErasureReceipt(
        **to_row(erasure).model_dump(),
        steps={name: StepView(count=step.count, at=step.at) for name, step in erasure.steps.items()},
        devices=[_proof(device) for device in erasure.devices],
    )


def to_started(erasure: Erasure, user_id: str) -> ErasureStarted:
    return ErasureStarted(**to_receipt(erasure).model_dump(), user_id=user_id)


def _proof(device: DeviceProof) -> DeviceProofView:
    return DeviceProofView(
        device_id=device.device_id,
        site_id=device.site_id,
        state=device.state,
        confirmed_at=device.confirmed_at,
    )
