"""The edge: camera, recognition, local store, delivery. Imports nothing heavy by itself.

What firmware uses (seed 003) is found here by name, and loaded when it is named first.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client.assembly import SyncManagerFactory
    from .client.iot_client import IoTClient
    from .enrollment.sync_manager import SyncManager
    from .events.emotion_validator import EmotionEventValidator
    from .events.event_validator import EventValidator
    from .events.image_utils import compress_image_for_event
    from .mqtt.config import IoTClientConfig
    from .store.db_manager import DatabaseManager

__all__ = [
    "DatabaseManager",
    "EmotionEventValidator",
    "EventValidator",
    "IoTClient",
    "IoTClientConfig",
    "SyncManager",
    "SyncManagerFactory",
    "compress_image_for_event",
]

if not TYPE_CHECKING:
    # Hidden from type checkers, which would take it for leave to import any name.

    def __getattr__(name: str) -> object:
        """PEP 562: the module that has `name` is imported now."""
        homes = {
            "DatabaseManager": "store.db_manager",
            "EmotionEventValidator": "events.emotion_validator",
            "EventValidator": "events.event_validator",
            "IoTClient": "client.iot_client",
            "IoTClientConfig": "mqtt.config",
            "SyncManager": "enrollment.sync_manager",
            "SyncManagerFactory": "client.assembly",
            "compress_image_for_event": "events.image_utils",
        }
        if name not in homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{homes[name]}", __name__), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
