"""Errors of photos."""

from broker_bridge.contract.errors import ContractError

PHOTO_INVALID = "photo-invalid"
PHOTO_NO_FACE = "photo-no-face"
PHOTO_SEVERAL_FACES = "photo-several-faces"
PHOTO_POOR = "photo-poor"


class PhotoError(ContractError):
    """An unusable photo: `photo-invalid`, `-no-face`, `-several-faces`, `-poor`."""
