"""Wire the program: open the registry, ensure spaces and keys, build the app."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.embeddings import DEFAULT_DIMENSIONS, EmbeddingSpace
from broker_bridge.contract.errors import SPACE_UNKNOWN, ContractError
from broker_bridge.registry import Registry
from broker_bridge.registry.events.admission import EventAdmission

from .app import create_app
from .services.photos import FaceEmbedding
from .settings import ApiProgram, ApiSettings

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_app(program: ApiProgram) -> AsyncIterator[FastAPI]:
    """Yield the app while its registry is open.

    Raises RegistryUnavailableError or SettingsError, with sentences for the operator.
    """
    embedder = _photo_embedder(program.api) if program.api.photos else None
    admission = EventAdmission(timedelta(days=program.bridge.event_max_age_days))
    registry = await Registry.open(
        program.mongo, settings=program.registry, search=program.search, event_admission=admission
    )
    try:
        if embedder is not None:
            await _ensure_model(registry, embedder[1])
        await ensure_spaces(registry, program.api)
        await ensure_key(registry, program.api)
        photo_embedder = embedder[0] if embedder else None
        yield create_app(registry, program.api, photo_embedder, tracking=program.tracking)
    finally:
        await registry.close()


def _photo_embedder(settings: ApiSettings) -> tuple[FaceEmbedding, EmbeddingSpace]:
    # Imported here, since without photos this program needs neither OpenCV nor ONNX Runtime.
    from device.vision.detectors.loader import load_detector  # noqa: PLC0415
    from device.vision.embedder import ModelError, load_embedder  # noqa: PLC0415
    from device.vision.photo_embedder import PhotoEmbedder  # noqa: PLC0415

    model = None if settings.face_model is None else str(settings.face_model)
    try:
        embedder = load_embedder(model, settings.default_spaces.get("face"))
    except ModelError as error:
        raise SettingsError([f"api.face_model: {error}"]) from error
    try:
        detector = load_detector(
            settings.face_detector,
            settings.face_detector_model,
            alignment=embedder.record.alignment or "landmarks",
        )
    except ModelError as error:
        raise SettingsError([f"api.face_detector_model: {error}"]) from error
    return PhotoEmbedder(detector, embedder), embedder.space


async def _ensure_model(registry: Registry, space: EmbeddingSpace) -> None:
    try:
        known = await registry.spaces.ensure(space)
    except ContractError as error:
        raise SettingsError([f"api.face_model: {error.detail}"]) from error
    if known.model_sha256 != space.model_sha256:
        mistake = (
            f"api.face_model: the registry has another model file on record for {space.id} "
            f"({known.model_sha256}); vectors of the two do not compare: use that file, or another name for "
            "the space"
        )
        raise SettingsError([mistake])


async def ensure_spaces(registry: Registry, settings: ApiSettings) -> None:
    """Record missing default spaces, with the usual dimension of their modality."""
    for modality, space_id in settings.default_spaces.items():
        try:
            await registry.spaces.get(space_id)
        except ContractError as error:
            if error.code != SPACE_UNKNOWN:
                raise
            await registry.spaces.ensure(EmbeddingSpace(space_id, DEFAULT_DIMENSIONS[modality]))


async def ensure_key(registry: Registry, settings: ApiSettings) -> None:
    """Create the configured first key in a fresh database, or log how to get one."""
    if settings.bootstrap_key is not None:
        await registry.api_keys.ensure_first(settings.bootstrap_key.get_secret_value())
        if await registry.api_keys.find(settings.bootstrap_key.get_secret_value()) is None:
            _log.warning(
                "api bootstrap key does not work; the database has other keys, or it was revoked: take "
                "WFM_API__BOOTSTRAP_KEY out of the configuration"
            )
    elif not await registry.api_keys.any():
        _log.warning(
            "api has no API key; every request gets 401: set WFM_API__BOOTSTRAP_KEY to a long random text, "
            "which becomes an admin key, and start again"
        )
    elif not await registry.api_keys.any_admin(utc_now()):
        _log.warning(
            "api has no admin key that works; create one: python -m dashboard_api new-key NAME --role admin"
        )
