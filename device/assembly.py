"""Store, line and sync of one device put together: what a camera and a virtual device have in common."""

import importlib.metadata
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler

from broker_bridge.contract.messages import SpaceInfo

from .clocks import utc_now
from .gallery_rows import GalleryRows
from .iot_client import EncodeImage, IoTClient
from .iot_config import IoTClientConfig, mqtt_settings
from .store.db_manager import DatabaseManager
from .store.outbox import DEFAULT_MAX_BYTES, Outbox
from .sync_manager import SyncManager, ignore_rows
from .sync_requests import SyncOptions


def software_version() -> str:
    return f"wfm-fleet {importlib.metadata.version('wfm-fleet')}"


@dataclass(frozen=True)
class Assembly:
    """The parts that every device has, wired and not started."""

    db: DatabaseManager
    outbox: Outbox
    client: IoTClient
    sync: SyncManager


def assemble(
    config: IoTClientConfig,
    db_path: Path,
    scheduler: BaseScheduler,
    *,
    on_gallery: Callable[[GalleryRows], None] = ignore_rows,
    encode_image: EncodeImage | None = None,
    outbox_bytes: int = DEFAULT_MAX_BYTES,
    sync_options: SyncOptions | None = None,
    source: random.Random | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Assembly:
    """Open the store and wire client and sync manager to it. Raises StoreError."""
    source = source or random.Random()  # noqa: S311  # spreads retries; nothing secret
    db = DatabaseManager(db_path, config.dev_mode, utc_now=utc_now)
    db.initialize()
    outbox = Outbox(db.connection, utc_now=utc_now, source=source, max_bytes=outbox_bytes)
    client = IoTClient(
        config, db, outbox, source=source, encode_image=encode_image, clock=clock, utc_now=utc_now
    )
    sync = SyncManager(
        db,
        client,
        device_id=config.device_id,
        site_id=config.site_id,
        spaces={space: info.dimension for space, info in config.spaces.items()},
        scheduler=scheduler,
        source=source,
        on_gallery=on_gallery,
        options=sync_options,
        clock=clock,
        utc_now=utc_now,
    )
    client.attach(sync)
    client.follow_with(sync.request_sync)
    return Assembly(db, outbox, client, sync)


class SyncManagerFactory:
    """Easy set-up for firmware with a recognition of its own (seed 003)."""

    @staticmethod
    def create(
        db_path: str | Path,
        device_id: str,
        broker_url: str,
        *,
        site_id: str,
        spaces: Mapping[str, int],
        on_gallery: Callable[[GalleryRows], None] = ignore_rows,
        ca_file: Path | None = None,
        dev_mode: bool = False,
    ) -> tuple[SyncManager, DatabaseManager, IoTClient]:
        """Sync manager, database and client of one device: start the client, then the periodic sync.

        `broker_url` is `mqtt://[user:password@]host[:port]` or `mqtts://` with `ca_file`; `spaces` is
        `{space: dimension}`. The scheduler of the periodic sync runs from the start. Raises ValueError for
        the URL, StoreError for the file.
        """
        scheduler = BackgroundScheduler(timezone=timezone.utc, daemon=True)
        config = IoTClientConfig(
            device_id=device_id,
            site_id=site_id,
            mqtt=mqtt_settings(broker_url, ca_file),
            spaces={space: SpaceInfo(dimension=dimension) for space, dimension in spaces.items()},
            dev_mode=dev_mode,
        )
        parts = assemble(config, Path(db_path), scheduler, on_gallery=on_gallery)
        scheduler.start()
        return parts.sync, parts.db, parts.client
