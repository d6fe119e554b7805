"""Keep all data in MongoDB, behind `Registry.open`.

Only this package imports the driver.
"""

from .mongo.client import MongoSettings, RegistryUnavailableError
from .mongo.errors import RegistryError
from .mongo.schema import Retention
from .registry import Registry

__all__ = ["MongoSettings", "Registry", "RegistryError", "RegistryUnavailableError", "Retention"]
