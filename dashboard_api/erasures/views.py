"""What the API shows of an erasure: the receipt, which names nobody."""

from typing import Literal

from broker_bridge.registry.privacy.erasure import DeviceProof, Erasure
from dashboard_api.http.base_models import Time, View


class StepView(View):
    """How many documents were deleted or changed in one place, and when last."""

    count: int
    at: Time


class DeviceProofView(View):
    """When a device confirmed; `gone` is one that was registered no more before it had."""

    device_id: str
    site_id: str
    state: Literal["confirmed", "gone", "waiting"]
    confirmed_at: Time | None


class ErasureRow(View):
    """An erasure in a list. It is complete when all devices have confirmed (but for those that are gone) and
    nothing can be on its way any more, a minute after it began."""

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
    """The receipt: what was done, and when each device confirmed that it holds nothing any more."""

    steps: dict[str, StepView]
    devices: list[DeviceProofView]


class ErasureBegun(ErasureReceipt):
    """The answer to who asked: the only one that says whose receipt it is."""

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


def to_begun(erasure: Erasure, user_id: str) -> ErasureBegun:
    return ErasureBegun(**to_receipt(erasure).model_dump(), user_id=user_id)


def _proof(device: DeviceProof) -> DeviceProofView:
    return DeviceProofView(
        device_id=device.device_id,
        site_id=device.site_id,
        state=device.state,
        confirmed_at=device.confirmed_at,
    )
