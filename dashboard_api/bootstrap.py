"""Wire the program: open the registry, ensure spaces and keys, build the app."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from fastapi import FastAPI

from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import DEFAULT_DIMENSIONS, EmbeddingSpace
from broker_bridge.contract.errors import SPACE_UNKNOWN, ContractError
from broker_bridge.registry import Registry
from broker_bridge.registry.events.admission import EventAdmission
from broker_bridge.registry.spaces import warn_of_missing_limits

from .app import create_app
from .services.photos import FaceEmbedding
from .settings import ApiProgram, ApiSettings

if TYPE_CHECKING:
    from device.vision.embedder import FaceEmbedder

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_app(program: ApiProgram) -> AsyncIterator[FastAPI]:
    """Yield the app while its registry is open.

    Raises RegistryUnavailableError or SettingsError, with sentences for the operator.
    """
    settings = program.api
    embedder = _load_photo_model(settings) if settings.photos else None
    admission = EventAdmission(timedelta(days=program.bridge.event_max_age_days))
    registry = await Registry.open(
        program.mongo, settings=program.registry, search=program.search, event_admission=admission
    )
    try:
        await _ensure_built_in(registry)
        photo_embedder = None
        if embedder is not None:
            settings = with_face_space(settings, embedder.space.id)
            photo_embedder = await _open_photo_embedder(embedder, registry, settings)
        await ensure_spaces(registry, settings)
        await ensure_key(registry, settings)
        yield create_app(registry, settings, photo_embedder, tracking=program.tracking)
    finally:
        await registry.close()


def _load_photo_model(settings: ApiSettings) -> "FaceEmbedder":
    # Imported here, since without photos this program needs neither OpenCV nor ONNX Runtime.
    from .photo_model import load_photo_model  # noqa: PLC0415

    return load_photo_model(settings)


async def _open_photo_embedder(
    embedder: "FaceEmbedder", registry: Registry, settings: ApiSettings
) -> FaceEmbedding:
    from .photo_model import open_photo_embedder  # noqa: PLC0415

    return await open_photo_embedder(embedder, registry.spaces, settings)


def with_face_space(settings: ApiSettings, space_id: str) -> ApiSettings:
    """Return the settings with the space of `api.face_model` as default for faces."""
    return settings.model_copy(update={"default_spaces": {**settings.default_spaces, "face": space_id}})


async def _ensure_built_in(registry: Registry) -> None:
    """Record the built-in model.

    Raises SettingsError if another one has its name: photos would be enrolled in a space of two models.
    """
    own = DEFAULT_FACE_SPACE
    try:
        known = await registry.spaces.ensure_record(own)
    except ContractError as error:
        mistake = f"the registry has another model under the name of the built-in one: {error.detail}"
        raise SettingsError([mistake]) from error
    if known.model_sha256 != own.model_sha256:
        mistake = (
            f"the registry has another model file on record for {own.space}, the space of the built-in model "
            f"({known.model_sha256}); vectors of the two do not compare: give that model a space of its own, "
            f"enroll its people there, and remove {own.space} with the release that recorded it"
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
    warn_of_missing_limits(await registry.spaces.records())


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
