"""Define the messages of enrollment sync and of registration at the edge."""

from typing import Annotated, Literal

from pydantic import Field

from broker_bridge.contract.ids import Epoch, RequestId, SiteId, SpaceId, TemplateId, UserId
from broker_bridge.contract.spaces import Alignment, DetectorName, Dimension, SpaceLimits
from broker_bridge.contract.wire import Sha256, UpMessage, WireModel, WireTime, WireVector

from .fields import Count, EnrollmentPolicy, Flag, Ratio, Version, WireError

MAX_PAGES = 8
"""The most pages of one answer: a device that is slow or gone leaves as many at the broker."""


class SpaceDigest(WireModel):
    """The number of templates in a space, and their digest (`digest.Digest.hex`)."""

    count: Count
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class SpaceHead(SpaceDigest):
    """A space in a site's head, as the registry has it on record.

    Without `limits` nothing may be matched in the space, unless the device has limits of its own. `people`
    counts the identities of the site that have a template in the space.
    """

    model_sha256: Sha256 | None = None
    dimension: Dimension | None = None
    detector: DetectorName | None = None
    alignment: Alignment | None = None
    limits: SpaceLimits | None = None
    people: Count | None = None


SpaceDigests = Annotated[dict[SpaceId, SpaceDigest], Field(max_length=16)]


class SyncPosition(WireModel):
    """The version of its site's history that a device has applied."""

    epoch: Epoch
    version: Version
    spaces: SpaceDigests


class SyncProgress(WireModel):
    """A sync under way: applied up to `version` of `head_version`.

    `people` counts the identities received so far by a snapshot sync.
    """

    version: Version
    head_version: Version
    people: Count = 0


class SyncHead(WireModel):
    """A site's newest version and the state of its devices at that version.

    Retained and tiny. `people` counts the identities of the site, with and without templates.
    """

    epoch: Epoch
    version: Version
    horizon: Version
    spaces: dict[SpaceId, SpaceHead]
    people: Count | None = None
    enrollment_policy: EnrollmentPolicy | None = None


class SyncRequest(UpMessage):
    """A device's request for the changes since `since_version` in `spaces`.

    `since_version` 0 requests everything, `spaces` None all spaces. `site_id` is the site that the device is
    configured for; a registered device may omit it. `reset_head_version` is set during a snapshot sync: the
    `head_version` of its first page. It distinguishes a snapshot sync that continues from a cursor that fell
    below the horizon. `pages` is the number of pages that the device takes as one answer, 1 if absent.
    """

    request_id: RequestId
    site_id: SiteId | None = None
    epoch: Epoch | None = None
    since_version: Version = 0
    limit: Annotated[int, Field(ge=1, le=5000)] = 200
    spaces: Annotated[list[SpaceId], Field(max_length=16)] | None = None
    reset_head_version: Version | None = None
    pages: Annotated[int, Field(ge=1, le=MAX_PAGES)] | None = None


class WireTemplate(WireModel):
    template_id: TemplateId
    space: SpaceId
    quality: Ratio | None = None
    vector: WireVector


class Upsert(WireModel):
    """The whole state of one identity at a site: these templates and no others."""

    user_id: UserId
    version: Version
    flag: Flag | None = None
    display_name: Annotated[str, Field(max_length=256)] | None = None
    templates: list[WireTemplate]


class Removal(WireModel):
    """An identity that was deleted or left the site."""

    user_id: UserId
    version: Version


class SyncPage(WireModel):
    """The answer to a SyncRequest: all changes in `(from_version, to_version]`.

    `reset` marks the first page of a snapshot sync: at its end the device removes every identity that no page
    named. With `error` the other fields carry no changes. `at` is the backend's time of the answer: with the
    time of its request a device learns how wrong its clock is. After a page with `more` the next one follows
    without another request, with the same request id and without `at`.
    """

    request_id: RequestId
    epoch: Epoch
    from_version: Version
    to_version: Version
    head_version: Version
    reset: bool = False
    done: bool
    more: bool | None = None
    at: WireTime | None = None
    error: WireError | None = None
    removals: list[Removal] = Field(default_factory=list)
    upserts: list[Upsert] = Field(default_factory=list)


class SyncDelta(WireModel):
    """A live change: all changes of the site in `(prev_version, version]`."""

    epoch: Epoch
    prev_version: Version
    version: Version
    removals: list[Removal] = Field(default_factory=list)
    upserts: list[Upsert] = Field(default_factory=list)


class SyncApplied(UpMessage):
    """The state of a device after a committed change; confirms deletions.

    Retained.
    """

    epoch: Epoch
    version: Version
    spaces: SpaceDigests
    duration_ms: Annotated[float, Field(ge=0)]
    error: WireError | None = None


class RegisterIdentity(UpMessage):
    request_id: RequestId
    user_id: UserId | None = None
    display_name: Annotated[str, Field(max_length=256)] | None = None
    kind: Literal["employee", "visitor"]
    space: SpaceId
    quality: Ratio | None = None
    vector: WireVector


class Registered(WireModel):
    """The registry's decision on a registration.

    For `exists`, `user_id` is the identity that the face belongs to.
    """

    request_id: RequestId
    result: Literal["created", "exists", "rejected"]
    user_id: UserId | None = None
    similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    error: WireError | None = None
