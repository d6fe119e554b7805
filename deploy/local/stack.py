"""Offer the parts of the local stack: real servers and our own programs."""

from .mongod import Mongod, find_mongod
from .mosquitto import Mosquitto
from .ports import free_port
from .program import ROOT, Program, ProgramError

__all__ = ["ROOT", "Mongod", "Mosquitto", "Program", "ProgramError", "find_mongod", "free_port"]
