"""Request and response bodies of `/api/v1/keys`."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from broker_bridge.contract.ids import DeviceId
from broker_bridge.registry.api_keys import KeyState, Role
from dashboard_api.http.base_models import Body, Time, View, WrittenTime
from dashboard_api.http.conditions import described_with, given_only_for

KeyName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


class KeyBody(Body):
    """A key to create; `edge` keys belong to one registered device."""

    model_config = ConfigDict(json_schema_extra=described_with(given_only_for("device_id", "role", "edge")))

    name: KeyName = Field(
        description="Shown in the list of keys and in the audit.", examples=["wall-display"]
    )
    role: Role = Field("viewer", description="The rights of the key.", examples=["viewer"])
    device_id: DeviceId | None = Field(
        None, description="The device of a key of the role `edge`; for no other role.", examples=["cam-001"]
    )
    expires_at: Annotated[WrittenTime, Field(strict=False)] | None = Field(
        None,
        description="Time from which the key does not work any more; null for a key without an expiry.",
        examples=["2027-01-31T00:00:00.000Z"],
    )

    @model_validator(mode="after")
    def _check_device(self) -> "KeyBody":
        if (self.role == "edge") != (self.device_id is not None):
            raise ValueError("the role edge needs a device_id, and other roles take none")
        return self


class KeyRecordView(View):
    """An API key, without its text, which is shown only once."""

    key_id: str = Field(description="The id of the key in this list; it opens nothing.")
    name: str = Field(description="The name of the key, as in the audit.", examples=["wall-display"])
    role: Role = Field(description="The rights of the key.", examples=["viewer"])
    device_id: str | None = Field(description="The device of a key of the role `edge`, else null.")
    state: KeyState = Field(description="`active`, or why the key does not work any more.")
    created_at: Time = Field(description="Time of creation.")
    expires_at: Time | None = Field(description="Time from which the key does not work, null for never.")
    revoked_at: Time | None = Field(description="Time of revocation, null for a key that is not revoked.")
    last_used_at: Time | None = Field(
        description="Time of the last request, at most a minute old; null for a key that was never used."
    )


class KeyCreatedView(KeyRecordView):
    """A new key with its text, which is not stored and never shown again."""

    key: str = Field(description="The text to send as `Authorization: Bearer <key>`.")


class KeyPage(View):
    """Keys, newest first."""

    items: list[KeyRecordView] = Field(description="The keys of this page.")
    next_cursor: str | None = Field(description="The cursor of the next page, null on the last page.")
