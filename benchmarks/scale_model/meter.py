"""Read what broker, bridge, API and MongoDB have spent: CPU, bytes, writes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient

from deploy.local.fleet import LocalFleet

_WRITES = ("inserted", "updated", "deleted")


@dataclass(frozen=True)
class Reading:
    """Counters at one moment, or their differences.

    `cpu` has seconds per program, `bytes_in` and `bytes_out` are the broker's. MongoDB counts the documents
    written, the transactions committed, the bytes of its journal and the update commands.
    """

    at: float
    cpu: Mapping[str, float]
    bytes_in: int
    bytes_out: int
    writes: int
    commits: int
    journal: int
    updates: int

    def since(self, earlier: "Reading", idle: Mapping[str, float]) -> "Reading":
        """Return the differences, without what each program spends when idle.

        `idle` has that in seconds of CPU a second.
        """
        seconds = self.at - earlier.at
        spent = {
            name: max(0.0, cpu - earlier.cpu[name] - idle.get(name, 0.0) * seconds)
            for name, cpu in self.cpu.items()
        }
        return Reading(
            seconds,
            spent,
            self.bytes_in - earlier.bytes_in,
            self.bytes_out - earlier.bytes_out,
            self.writes - earlier.writes,
            self.commits - earlier.commits,
            self.journal - earlier.journal,
            self.updates - earlier.updates,
        )


class Meter:
    """Reads the counters of a fleet's servers and programs."""

    def __init__(self, fleet: LocalFleet) -> None:
        programs = {
            "broker": fleet.broker.program,
            "mongod": fleet.mongod.program,
            "bridge": fleet.bridge,
            "api": fleet.api,
        }
        self._processes = {
            name: psutil.Process(program.pid) for name, program in programs.items() if program.running
        }
        self._broker_io = Path(f"/proc/{fleet.broker.program.pid}/io")
        self._client: MongoClient[dict[str, Any]] = MongoClient(fleet.mongod.uri)

    def read(self) -> Reading:
        """Return all counters now."""
        status = self._client.admin.command("serverStatus")
        documents, transactions = status["metrics"]["document"], status["transactions"]
        # Mosquitto reads and writes its sockets by read() and write(), which this counts.
        io = dict(line.split(": ") for line in self._broker_io.read_text().splitlines())
        return Reading(
            time.perf_counter(),
            {name: cpu_seconds(process) for name, process in self._processes.items()},
            int(io["rchar"]),
            int(io["wchar"]),
            sum(int(documents[kind]) for kind in _WRITES),
            int(transactions["totalCommitted"]),
            int(status["wiredTiger"]["log"]["log bytes written"]),
            int(status["metrics"]["commands"]["update"]["total"]),
        )

    def close(self) -> None:
        self._client.close()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the seconds of CPU that a process has used, user and system."""
    times = process.cpu_times()
    return float(times.user + times.system)
