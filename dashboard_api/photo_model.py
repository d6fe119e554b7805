"""Load the model that embeds photos, as its record and the registry have it."""

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.registry.spaces import SpaceRegistry
from device.vision.embedder import FaceEmbedder, load_embedder
from device.vision.inference.session import ModelError
from device.vision.model_record import with_detector
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.recorded.face_model import load_recorded_detector
from device.vision.recorded.model_settings import FaceModelSettings

from .settings import ApiSettings


def load_photo_model(settings: ApiSettings) -> FaceEmbedder:
    """Load the model of `api.face_model`. Raises SettingsError with one sentence."""
    space = settings.default_spaces.get("face")
    try:
        return load_embedder(settings.face_model, space)
    except ModelError as error:
        named = f" (api.default_spaces.face is {space})" if space else ""
        raise SettingsError([f"api.face_model: {error}{named}"]) from error


async def open_photo_embedder(
    embedder: FaceEmbedder, spaces: SpaceRegistry, settings: ApiSettings
) -> PhotoEmbedder:
    """Record the space of `embedder`, and return it with the detector on record.

    Raises SettingsError with one sentence: vectors of two model files, detectors or alignments do not
    compare.
    """
    try:
        known = await spaces.ensure_record(embedder.record)
    except ContractError as error:
        raise SettingsError([f"api.face_model: {error.detail}"]) from error
    _check_same(embedder.record, known)
    try:
        complete = with_detector(known, settings.face_detector)
    except ModelError as error:
        raise SettingsError([f"api.face_detector: {error}"]) from error
    # The limits that hold may be configured ones: they are not recorded by the way.
    await spaces.ensure_record(complete.model_copy(update={"limits": None, "source": None}))
    embedder.record = complete
    try:
        detector = load_recorded_detector(
            FaceModelSettings(detector_model=settings.face_detector_model), complete
        )
    except ModelError as error:
        raise SettingsError([f"api.face_detector_model: {error}"]) from error
    return PhotoEmbedder(detector, embedder)


def _check_same(own: SpaceRecord, known: SpaceRecord) -> None:
    """Raise SettingsError if the record beside the model contradicts the registry's."""
    if known.model_sha256 != own.model_sha256:
        mistake = (
            f"api.face_model: the registry has another model file on record for {own.space} "
            f"({known.model_sha256}); vectors of the two do not compare: use that file, or another name for "
            "the space"
        )
        raise SettingsError([mistake])
    for name in ("detector", "alignment"):
        beside, recorded = getattr(own, name), getattr(known, name)
        if beside not in (None, recorded):
            mistake = (
                f"api.face_model: the record beside the model says {name} {beside}, and the registry has "
                f"{recorded} on record for {own.space}; faces are then cut differently at enrollment and at "
                "cameras: correct the file, or PUT /api/v1/spaces"
            )
            raise SettingsError([mistake])
