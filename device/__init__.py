"""The edge: camera, recognition, local store, event delivery.

The public names of seed 003 are attributes of this package. Each is imported at its first use, so that
firmware loads only what it needs.
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
    # Hidden from type checkers, which would otherwise accept any name.

    def __getattr__(name: str) -> object:
        """Import the module of `name` and return its value (PEP 562)."""
        module_of = {
            "DatabaseManager": "store.db_manager",
            "EmotionEventValidator": "events.emotion_validator",
            "EventValidator": "events.event_validator",
            "IoTClient": "client.iot_client",
            "IoTClientConfig": "mqtt.config",
            "SyncManager": "enrollment.sync_manager",
            "SyncManagerFactory": "client.assembly",
            "compress_image_for_event": "events.image_utils",
        }
        if name not in module_of:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{module_of[name]}", __name__), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
