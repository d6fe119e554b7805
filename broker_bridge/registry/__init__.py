"""MongoDB: the only package that imports the driver. `Registry.open` is the door."""

from .mongo.client import MongoSettings, RegistryUnavailableError
from .mongo.errors import RegistryError
from .mongo.schema import Retention
from .registry import Registry

__all__ = ["MongoSettings", "Registry", "RegistryError", "RegistryUnavailableError", "Retention"]
