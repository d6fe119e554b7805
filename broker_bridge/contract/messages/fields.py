"""Define the constrained values that messages share."""

from typing import Annotated, Literal

from pydantic import Field

from broker_bridge.contract.wire import WireModel

Count = Annotated[int, Field(ge=0, lt=2**63)]
Version = Annotated[int, Field(ge=0, lt=2**63)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Code = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Sentence = Annotated[str, Field(max_length=1000)]
Flag = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
EnrollmentPolicy = Literal["closed", "visitors"]
"""Whether a site's cameras may register unknown faces: as `visitors`, or not at all (`closed`)."""


LivenessMethod = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
"""How a camera told a living face from a picture of one, such as `depth` or `texture`."""


class WireError(WireModel):
    code: Code
    detail: Sentence


class Liveness(WireModel):
    """Result of a liveness check: 0 for a picture or a mask, 1 for a living face."""

    score: Ratio
    method: LivenessMethod
