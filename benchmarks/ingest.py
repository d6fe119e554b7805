"""Measure 10,000 embeddings in one request beside a bare insert of the vectors."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from bson.binary import Binary
from numpy.typing import NDArray
from pymongo import MongoClient
from rich.progress import Progress

from deploy.local.fleet import LocalFleet

from . import bare
from .scale import Scale
from .stats import Latency, Row

DIMENSION = 512
LEAST_PER_SECOND = 2000
_SENT_LINES = 100


def measure(folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    """Measure requests of `identities` as base64 and as numbers, and bare inserts.

    The three take turns.
    """
    count = scale.identities
    ours: list[float] = []
    numbers: list[float] = []
    floor: list[float] = []
    with LocalFleet(folder, []) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        task = progress.add_task("ingest", total=scale.turns)
        for turn in range(scale.turns):
            vectors = _vectors(2 * turn, count)
            ours.append(_ingest(fleet, f"catalog-{turn}", vectors, as_numbers=False))
            floor.append(_bare_insert(fleet, vectors))
            vectors = _vectors(2 * turn + 1, count)
            numbers.append(_ingest(fleet, f"numbers-{turn}", vectors, as_numbers=True))
            progress.advance(task)
    limit = count / LEAST_PER_SECOND * 1000
    return [
        Row(
            f"ingest of {count:,} embeddings (base64)",
            Latency.from_seconds(ours),
            limit,
            Latency.from_seconds(floor),
        ),
        Row("  the same as lists of numbers", Latency.from_seconds(numbers), limit),
        Row("  bare insert_many of the same vectors", Latency.from_seconds(floor)),
    ]


def _vectors(seed: int, count: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)


def _ingest(fleet: LocalFleet, source: str, vectors: NDArray[np.float32], *, as_numbers: bool) -> float:
    """Return the seconds from the first byte of the request to the answer."""
    body = [_line(source, number, vector, as_numbers=as_numbers) for number, vector in enumerate(vectors)]
    chunks = [b"".join(body[start : start + _SENT_LINES]) for start in range(0, len(body), _SENT_LINES)]
    headers = {"Content-Type": "application/x-ndjson"}
    started = time.perf_counter()
    answer = fleet.http.post(
        "/api/identities/ingest-embeddings", content=iter(chunks), headers=headers, timeout=120
    )
    took = time.perf_counter() - started
    answer.raise_for_status()
    if answer.json()["embeddings_stored"] != len(vectors):
        raise RuntimeError(f"not everything was stored: {answer.text[:1000]}")
    return took


def _line(source: str, number: int, vector: NDArray[np.float32], *, as_numbers: bool) -> bytes:
    face: dict[str, Any] = {"confidence": 0.9}
    if as_numbers:
        face["embedding"] = vector.tolist()
    else:
        face["vector"] = base64.b64encode(vector.tobytes()).decode()
    person = {"source_system": source, "external_id": str(number), "name": f"Person {number}"}
    return json.dumps({**person, "faces": [face]}).encode() + b"\n"


def _bare_insert(fleet: LocalFleet, vectors: NDArray[np.float32]) -> float:
    """Return the seconds for the vectors alone, a thousand documents at once."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(fleet.mongod.uri) as client:
        collection = client["bare"].get_collection("templates", write_concern=bare.DURABLE)
        documents = [
            {"user_id": str(number), "vector": Binary(vector.tobytes())}
            for number, vector in enumerate(vectors)
        ]
        started = time.perf_counter()
        for start in range(0, len(documents), 1000):
            collection.insert_many(documents[start : start + 1000], ordered=False)
        took = time.perf_counter() - started
        client.drop_database("bare")
    return took
