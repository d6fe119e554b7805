"""One setting names the model of the API, and the records agree with it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.registry import MongoSettings, Registry
from dashboard_api.bootstrap import open_app
from dashboard_api.settings import ApiProgram, ApiSettings
from deploy.local.stack import Mongod
from device.vision.model_record import built_in_model
from tests.space_limits import LIMITS

OWN = "face:own-model"
BESIDE = DEFAULT_FACE_SPACE.model_copy(update={"space": OWN, "limits": LIMITS})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a copy of the built-in model, with a record of its own beside it."""
    path = tmp_path / "own.onnx"
    shutil.copy(built_in_model(), path)
    path.with_suffix(".json").write_bytes(BESIDE.to_json())
    return path


async def default_face_space(mongod: Mongod, database: str, **api: Any) -> str:
    """Return the default space of faces of an API that starts with these settings."""
    program = ApiProgram(
        mongo=MongoSettings(uri=SecretStr(mongod.uri), database=database), api=ApiSettings(**api)
    )
    async with open_app(program) as app:
        face: str = app.state.services.settings.default_spaces["face"]
        return face


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{}", ("face:resnet", "gait:default-256", "speaker:default-192")),
        ('{"face": "face:own"}', ("face:own", "gait:default-256", "speaker:default-192")),
        ('{"gait": "gait:own"}', ("face:resnet", "gait:own", "speaker:default-192")),
    ],
)
def test_a_default_space_replaces_its_own_modality_alone(given: str, expected: tuple[str, ...]) -> None:
    """JSON of the environment that names a modality keeps the others."""
    spaces = load_settings(ApiProgram, None, {"WFM_API__DEFAULT_SPACES": given}).api.default_spaces
    named = {"face:resnet": DEFAULT_FACE_SPACE.space}
    assert spaces == dict(
        zip(("face", "gait", "speaker"), (named.get(one, one) for one in expected), strict=True)
    )


async def test_the_model_names_the_default_space(mongod: Mongod, mongo_database: str, model: Path) -> None:
    """The record beside the file is on record then, with its limits."""
    assert await default_face_space(mongod, mongo_database) == DEFAULT_FACE_SPACE.space
    assert await default_face_space(mongod, mongo_database, face_model=model) == OWN
    registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    assert await registry.spaces.record(OWN) == BESIDE
    assert await registry.spaces.record(DEFAULT_FACE_SPACE.space) == DEFAULT_FACE_SPACE
    await registry.close()


OTHER_FILE = SpaceRecord(space=OWN, dimension=512, model_sha256="b" * 64)


@pytest.mark.parametrize(
    ("recorded", "api", "sentence"),
    [
        (None, {"default_spaces": {"face": "face:other"}}, "face:other needs the path of its model"),
        (None, {"face_model": True, "default_spaces": {"face": "face:other"}}, "face:other"),
        (None, {"face_detector": "scrfd", "face_detector_model": "/none.onnx"}, "api.face_detector: .*scrfd"),
        (None, {"face_detector_model": "/none.onnx"}, "api.face_detector_model: "),
        (OTHER_FILE, {"face_model": True}, "another model file"),
        (OTHER_FILE.model_copy(update={"dimension": 4}), {"face_model": True}, "4 dimensions"),
        (BESIDE.model_copy(update={"detector": "scrfd"}), {"face_model": True}, "detector"),
        (
            OTHER_FILE.model_copy(update={"space": DEFAULT_FACE_SPACE.space}),
            {"photos": False},
            "another model file",
        ),
        (SpaceRecord(space=DEFAULT_FACE_SPACE.space, dimension=4), {"photos": False}, "another model"),
    ],
)
async def test_settings_that_contradict_a_record_are_refused_at_start(
    mongod: Mongod,
    mongo_database: str,
    model: Path,
    recorded: SpaceRecord | None,
    api: dict[str, Any],
    sentence: str,
) -> None:
    """Each has a sentence that names the setting or the space."""
    if recorded is not None:
        registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
        fields = recorded.model_dump(exclude={"space"}, exclude_none=True)
        await registry.mongo.db.spaces.insert_one({"_id": recorded.space, **fields})
        await registry.close()
    if "face_model" in api:
        api = {**api, "face_model": model}
    with pytest.raises(SettingsError, match=sentence):
        await default_face_space(mongod, mongo_database, **api)


async def test_the_detector_on_record_finds_the_faces_of_a_model_without_a_record(
    mongod: Mongod, mongo_database: str, model: Path
) -> None:
    """Nothing is guessed where the registry knows it."""
    model.with_suffix(".json").unlink()
    registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    await registry.spaces.ensure(EmbeddingSpace(OWN, 512))
    recorded = SpaceRecord(space=OWN, dimension=512, detector="scrfd", alignment="landmarks")
    await registry.spaces.put(recorded, by="admin")
    await registry.close()
    with pytest.raises(SettingsError, match=r"api\.face_detector_model: .*scrfd"):
        await default_face_space(mongod, mongo_database, face_model=model, default_spaces={"face": OWN})
