"""The parts that cameras, virtual devices and other firmware share.

Other firmware has its own recognition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker_bridge.common.clock import utc_now
from broker_bridge.common.programs.version import DISTRIBUTION, version
from broker_bridge.contract.messages import SpaceInfo
from device.enrollment.gallery_state import OnGallery, ignore_rows
from device.enrollment.sync_manager import SyncManager
from device.enrollment.sync_requests import SyncOptions
from device.mqtt.config import DEFAULT_SITE, IoTClientConfig, default_spaces
from device.store.db_manager import DatabaseManager
from device.store.outbox import DEFAULT_MAX_BYTES, Outbox

from .iot_client import EncodeImage, IoTClient, compress_face


def software_version() -> str:
    return f"{DISTRIBUTION} {version()}"


@dataclass(frozen=True)
class Assembly:
    """The parts of every device, wired and not started."""

    db: DatabaseManager
    outbox: Outbox
    client: IoTClient
    sync: SyncManager


def assemble(
    config: IoTClientConfig,
    db_path: Path,
    *,
    on_gallery: OnGallery = ignore_rows,
    encode_image: EncodeImage = compress_face,
    outbox_bytes: int = DEFAULT_MAX_BYTES,
    sync_options: SyncOptions | None = None,
) -> Assembly:
    """Open the store and wire a client to it.

    The caller closes the store. Raises StoreError.
    """
    db = DatabaseManager(db_path, config.dev_mode, utc_now=utc_now)
    db.initialize()
    client = IoTClient(
        config,
        db,
        on_gallery=on_gallery,
        encode_image=encode_image,
        outbox_bytes=outbox_bytes,
        sync_options=sync_options,
    )
    return Assembly(db, client.outbox, client, client.sync)


class SyncManagerFactory:
    """Set-up in one call for firmware with a recognition of its own (seed 003)."""

    @staticmethod
    def create(
        db_path: str | Path,
        device_id: str,
        broker_url: str,
        *,
        api_key: str | None = None,
        ca_file: str | Path | None = None,
        site_id: str = DEFAULT_SITE,
        spaces: Mapping[str, int] | None = None,
        on_gallery: OnGallery = ignore_rows,
        dev_mode: bool = False,
    ) -> tuple[SyncManager, DatabaseManager, IoTClient]:
        """Return sync manager, database and running client of one device.

        The client's `stop` closes all three. `broker_url`, `api_key` and `ca_file` are those of
        `IoTClientConfig`. `spaces` is `{space: dimension}`, by default the API's own space of faces.
        Raises ValueError for the URL or an id, SettingsError for `ca_file`, StoreError for the database.
        """
        infos = {space: SpaceInfo(dimension=dimension) for space, dimension in (spaces or {}).items()}
        config = IoTClientConfig(
            device_id=device_id,
            broker_url=broker_url,
            api_key=api_key,
            ca_file=ca_file,
            site_id=site_id,
            spaces=infos or default_spaces(),
            db_path=Path(db_path),
            dev_mode=dev_mode,
        )
        client = IoTClient(config, on_gallery=on_gallery)
        client.start()
        return client.sync, client.db, client
