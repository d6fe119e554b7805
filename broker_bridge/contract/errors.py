"""Define errors with stable codes: the same on the wire, in REST and in logs."""

from typing import Final

EVENT_INVALID: Final = "event-invalid"
EVENT_CONFLICT: Final = "event-conflict"
EVENT_RETAINED: Final = "event-retained"
EVENT_TIME_IMPLAUSIBLE: Final = "event-time-implausible"
OBSERVATION_TIME_IMPLAUSIBLE: Final = "observation-time-implausible"
DEVICE_MISMATCH: Final = "device-mismatch"
DEVICE_UNKNOWN: Final = "device-unknown"
DEVICE_DECOMMISSIONED: Final = "device-decommissioned"
DEVICE_RESERVED: Final = "device-reserved"
PAYLOAD_TOO_LARGE: Final = "payload-too-large"
PAYLOAD_INVALID: Final = "payload-invalid"
TOPIC_UNKNOWN: Final = "topic-unknown"
IMAGE_INVALID: Final = "image-invalid"
SPACE_UNKNOWN: Final = "space-unknown"
SPACE_MISMATCH: Final = "space-mismatch"
SPACES_TOO_MANY: Final = "spaces-too-many"
SPACE_IN_USE: Final = "space-in-use"
LIMITS_MISSING: Final = "limits-missing"
MODEL_DIFFERS: Final = "model-differs"
PREPARATION_DIFFERS: Final = "preparation-differs"
THRESHOLDS_UNSUITED: Final = "thresholds-unsuited"
GALLERY_EMPTY: Final = "gallery-empty"
CLOCK_WRONG: Final = "clock-wrong"
CAMERA_FROZEN: Final = "camera-frozen"
CAMERA_DARK: Final = "camera-dark"
GALLERY_STALE: Final = "gallery-stale"
MODEL_FAILED: Final = "model-failed"
LIVENESS_MISSING: Final = "liveness-missing"
LIVENESS_FAILED: Final = "liveness-failed"
STORE_FAILED: Final = "store-failed"
DUPLICATE_ID: Final = "duplicate-id"
STORE_DAMAGED: Final = "store-damaged"
CANARY_FAILED: Final = "canary-failed"
ENROLLMENT_CLOSED: Final = "enrollment-closed"
FACE_AMBIGUOUS: Final = "face-ambiguous"
FACE_DIFFERS: Final = "face-differs"
COMMAND_UNKNOWN: Final = "command-unknown"
SITE_MISMATCH: Final = "site-mismatch"
VECTOR_INVALID: Final = "vector-invalid"
FILE_INVALID: Final = "file-invalid"
TEMPLATES_TOO_MANY: Final = "templates-too-many"


class ContractError(ValueError):
    """A violation of the contract: a stable `code` and a `detail` sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"
