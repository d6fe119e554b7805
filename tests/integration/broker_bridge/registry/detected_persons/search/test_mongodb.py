"""Search by MongoDB's $vectorSearch, played as its documentation describes.

No deployment that has it can run here, so its answers are played: a collection whose `aggregate` gives what
is documented for these stages. What is sent is checked against the documentation as well.
"""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pymongo.errors import OperationFailure

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry, RegistryUnavailableError
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.documents import centroid_to_document, vector_of
from broker_bridge.registry.detected_persons.search.mongodb import MongoVectorSearch
from broker_bridge.registry.detected_persons.settings import SearchSettings
from broker_bridge.registry.mongo.client import Mongo

SPACE = EmbeddingSpace("face:test-8", 8)
ALICE, BOB, CAROL = np.eye(8, dtype=np.float32)[:3]


def known(vector: Any, centroid_norm: float = 1.0, space: EmbeddingSpace = SPACE) -> FaceCentroid:
    return FaceCentroid.restored(space.id, np.asarray(vector, np.float32), centroid_norm, 1.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class PlayedDeployment:
    """A database with vector search, as far as it is documented.

    A search index is built after it was looked at twice. `$vectorSearch` knows the documents of `indexed`.
    """

    driver = "pymongo"
    hosts = "played:27017"

    def __init__(self, *indexed: dict[str, Any]) -> None:
        self.indexed = list(indexed)
        self.indexes: dict[str, dict[str, Any]] = {}
        self.looked: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.db = self

    def __getitem__(self, name: str) -> "PlayedDeployment":
        assert name == "person_faces"
        return self

    def with_options(self, read_concern: Any) -> "PlayedDeployment":
        assert read_concern.level == "local"
        return self

    async def command(self, command: dict[str, Any]) -> None:
        assert command["createSearchIndexes"] == "person_faces"
        for index in command["indexes"]:
            if index["name"] in self.indexes:
                raise OperationFailure("Duplicate Index", 68)
            assert index["type"] == "vectorSearch"
            self.indexes[index["name"]] = index["definition"]

    async def aggregate(self, pipeline: list[dict[str, Any]]) -> Any:
        (name, stage), *_ = pipeline[0].items()
        found = self._list(stage) if name == "$listSearchIndexes" else self._search(stage, pipeline[1])

        async def to_list(_: None) -> list[dict[str, Any]]:
            return found

        return SimpleNamespace(to_list=to_list)

    def _list(self, stage: dict[str, Any]) -> list[dict[str, Any]]:
        if stage["name"] not in self.indexes:
            return []
        self.looked.append(stage["name"])
        built = self.looked.count(stage["name"]) > 2
        return [
            {"name": stage["name"], "queryable": built, "status": "READY" if built else "BUILDING"},
        ]

    def _search(self, stage: dict[str, Any], projection: dict[str, Any]) -> list[dict[str, Any]]:
        assert projection == {
            "$project": {"person": 1, "consistency": 1, "score": {"$meta": "vectorSearchScore"}}
        }
        vector, filtered = self.indexes[stage["index"]]["fields"]
        query = vector_of(stage["queryVector"])
        assert (vector["path"], filtered["path"], vector["similarity"]) == (stage["path"], "space", "cosine")
        assert len(query) == vector["numDimensions"]
        assert stage["limit"] <= stage["numCandidates"] <= 10_000
        self.asked.append(stage)
        found = [
            {
                "_id": one["_id"],
                "person": one["person"],
                "consistency": one["consistency"],
                "score": (1 + float(vector_of(one["vector"]) @ query)) / 2,
            }
            for one in self.indexed
            if one["space"] == stage["filter"]["space"]
        ]
        return sorted(found, key=lambda one: one["score"], reverse=True)[: stage["limit"]]


def searching(deployment: PlayedDeployment, clock: Clock | None = None) -> MongoVectorSearch:
    return MongoVectorSearch(
        cast("Mongo", deployment), "faces", recent_seconds=60, clock=clock or Clock(), poll_seconds=0
    )


async def nearest(search: MongoVectorSearch, vector: Any, floor: float = 0.5) -> list[tuple[int, float]]:
    (answer,) = await search.candidates(SPACE, [vector], 5, floor)
    return [(one.global_id, round(one.similarity, 3)) for one in answer]


async def test_a_deployment_without_vector_search_is_one_sentence(mongo_settings: MongoSettings) -> None:
    """A community MongoDB is rejected with the setting to change."""
    with pytest.raises(RegistryUnavailableError) as refused:
        await Registry.open(mongo_settings, search=SearchSettings(engine="mongodb"))
    sentence = str(refused.value)
    assert "has no $vectorSearch" in sentence
    assert 'set search.engine (WFM_SEARCH__ENGINE) to "memory"' in sentence
    await (await Registry.open(mongo_settings, search=SearchSettings(engine="memory"))).close()


async def test_the_mean_cosine_comes_from_score_and_centroid_norm() -> None:
    """A score is (1 + cosine) / 2.

    People of other spaces and below the floor are not named.
    """
    other = EmbeddingSpace("face:other-8", 8)
    deployment = PlayedDeployment(
        centroid_to_document(1, known((ALICE + BOB) / np.sqrt(2))),
        centroid_to_document(2, known(ALICE, 0.9)),
        centroid_to_document(3, known(ALICE, 0.4)),
        centroid_to_document(4, known(ALICE, space=other)),
    )
    search = searching(deployment)
    assert await nearest(search, ALICE) == [(2, 0.9), (1, 0.707)]
    both = await search.candidates(SPACE, [ALICE, BOB], 1, 0.5)
    assert [[one.global_id for one in answer] for answer in both] == [[2], [1]]


async def test_more_neighbours_are_read_than_wanted() -> None:
    """The search reads twenty times the results, at most 10,000."""
    deployment = PlayedDeployment()
    search = searching(deployment)
    await search.candidates(SPACE, [ALICE], 5, 0.5)
    await search.candidates(SPACE, [ALICE], 5000, 0.5)
    assert [(one["limit"], one["numCandidates"]) for one in deployment.asked] == [(20, 400), (10_000, 10_000)]


async def test_a_search_index_per_dimension_is_created_and_awaited(caplog: pytest.LogCaptureFixture) -> None:
    """An unfinished index finds no person. Concurrent programs create it once."""
    deployment = PlayedDeployment()
    gait = EmbeddingSpace("gait:test-4", 4)
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(*(searching(deployment).prepare_space(space) for space in (SPACE, SPACE, gait)))
    assert list(deployment.indexes) == ["faces-8", "faces-4"]
    assert deployment.indexes["faces-8"]["fields"] == [
        {"type": "vector", "path": "vector", "numDimensions": 8, "similarity": "cosine"},
        {"type": "filter", "path": "space"},
    ]
    assert "index=faces-8 status='BUILDING'" in caplog.text
    looked = len(deployment.looked)
    search = searching(deployment)
    await search.prepare_space(SPACE)
    await search.candidates(SPACE, [ALICE], 5, 0.5)
    assert len(deployment.looked) == looked + 1


async def test_a_recent_write_is_found_before_the_index_has_it() -> None:
    """For a minute a local write overrides the result of the index."""
    clock = Clock()
    search = searching(PlayedDeployment(centroid_to_document(1, known(ALICE))), clock)
    search.record_centroid(2, known(ALICE, 0.9))
    search.record_centroid(1, known(BOB))
    assert await nearest(search, ALICE) == [(2, 0.9)]
    assert await nearest(search, BOB) == [(1, 1.0)]
    clock.now = 59
    search.record_centroid(3, known(CAROL))
    clock.now = 61
    assert await nearest(search, ALICE) == [(1, 1.0)]
    assert await nearest(search, BOB) == []
    assert await nearest(search, CAROL) == [(3, 1.0)]


async def test_a_recent_deletion_is_not_found_while_the_index_lags() -> None:
    """Nor when this program had learned them just before."""
    search = searching(PlayedDeployment(centroid_to_document(1, known(ALICE))))
    search.record_centroid(2, known(ALICE))
    search.record_deletion(1)
    search.record_deletion(2)
    assert await nearest(search, ALICE) == []


async def test_recent_writes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; learning again makes young."""
    monkeypatch.setattr("broker_bridge.registry.detected_persons.search.recent._MAX_PERSONS", 2)
    search = searching(PlayedDeployment())
    for global_id, vector in [(1, ALICE), (2, BOB), (1, ALICE), (3, CAROL)]:
        search.record_centroid(global_id, known(vector))
    assert await nearest(search, BOB) == []
    assert await nearest(search, ALICE) == [(1, 1.0)]
    assert await nearest(search, CAROL) == [(3, 1.0)]
