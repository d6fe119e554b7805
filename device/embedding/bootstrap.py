"""Wire the parts of `python -m device.embed_worker`."""

import asyncio
import logging
import math
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from broker_bridge.common.retry import Backoff
from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.spaces import SpaceRecord
from device.vision.inference.session import SessionOptions
from device.vision.photo_embedder import PhotoEmbedder
from device.vision.recorded.face_model import load_face_model

from .backend import Backend, ClaimedJob
from .catalog import Catalog
from .photos import PhotoFaceEmbedder, PhotoReader
from .progress import Reporter
from .retrier import RequestRetrier, Sleep
from .service import HttpService
from .settings import WorkerSection
from .work import JobWork
from .worker import EmbedWorker

_BACKOFF = Backoff(base=1.0, cap=60.0)
_MEGABYTE = 1_000_000


def load_photo_embedder(worker: WorkerSection) -> tuple[PhotoEmbedder, SpaceRecord]:
    """Load the configured detector and embedder, with the record of their space.

    Raises ModelError with one sentence.
    """
    options = SessionOptions(providers=worker.providers, threads=worker.threads)
    model = load_face_model(worker.face_model_settings, options)
    return PhotoEmbedder(model.detector, model.embedder), model.record


def silence_request_logs() -> None:
    """Keep the addresses of photos out of the log: httpx logs every request."""
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


@asynccontextmanager
async def open_worker(
    worker: WorkerSection,
    embedder: PhotoFaceEmbedder,
    record: SpaceRecord,
    reporter: Reporter,
    *,
    once: bool,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[EmbedWorker]:
    """Open a worker with its connections.

    Raises SettingsError for an unusable `ca_file`.
    """
    tls = _tls(worker)
    source = random.Random()  # noqa: S311  # spreads repeats; nothing secret
    catalog_key = worker.catalog_key.get_secret_value() if worker.catalog_key else None
    timeout = worker.timeout_seconds
    to_backend = HttpService(
        "backend", str(worker.backend_url), worker.backend_key.get_secret_value(), timeout=timeout, tls=tls
    )
    to_catalog = HttpService("catalog", str(worker.catalog_url), catalog_key, timeout=timeout, tls=tls)

    def retrier(patience: float) -> RequestRetrier:
        return RequestRetrier(patience, backoff=_BACKOFF, source=source, clock=clock, sleep=sleep)

    async with to_backend, to_catalog:
        backend = Backend(
            to_backend,
            retrier(worker.patience_seconds if once else math.inf),
            record=record,
            worker_id=worker.worker_id,
            lease_seconds=worker.lease_seconds,
        )
        catalog = Catalog(
            to_catalog, retrier(worker.patience_seconds), max_photo_bytes=worker.photo_mb * _MEGABYTE
        )
        reader = PhotoReader(catalog, embedder)

        def create_work(job: ClaimedJob) -> JobWork:
            return JobWork(
                job, backend, catalog, reader, reporter,
                group_photos=worker.group_photos, lease_seconds=worker.lease_seconds,
            )  # fmt: skip

        yield EmbedWorker(backend, create_work, poll_seconds=worker.poll_seconds, sleep=sleep, source=source)


def _tls(worker: WorkerSection) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=worker.ca_file)
    except OSError as error:
        raise SettingsError([f"worker.ca_file: {worker.ca_file} is not a file of certificates"]) from error
