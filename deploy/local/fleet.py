"""Run broker, database, bridge, API and cameras on this machine."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

import httpx

from .stack import Mongod, Mosquitto, Program, ProgramError, free_port

SITE = "lobby"
_READY_SECONDS = 60.0


class LocalFleet:
    """Servers and programs with their files in `folder`. Use as a context manager.

    The broker admits `devices`. Everything listens on loopback and on free ports (with `usual_ports` on the
    usual ones, if free); passwords and the API key are random. The end of the context stops everything.
    """

    def __init__(
        self,
        folder: Path,
        devices: Sequence[str],
        *,
        bridge: Mapping[str, object] | None = None,
        usual_ports: bool = False,
    ) -> None:
        self.folder = folder
        self.api_key = f"wfm_{secrets.token_urlsafe(24)}"
        users = {name: secrets.token_hex(12) for name in ("bridge", "operator", *devices)}
        self.broker = Mosquitto(
            folder / "broker", free_port(1883 if usual_ports else None), users, dict.fromkeys(devices, SITE)
        )
        self.mongod = Mongod(folder / "mongod", free_port(27017 if usual_ports else None))
        self.api_port = free_port(8000 if usual_ports else None)
        self.database = "wfm"
        self._bridge_settings = {"auto_register": True, **(bridge or {})}
        self.bridge = self.make_bridge("bridge")
        self.api = Program(
            [sys.executable, "-m", "dashboard_api"],
            folder / "api.log",
            {**self._mongo(), "WFM_API__PORT": str(self.api_port), "WFM_API__BOOTSTRAP_KEY": self.api_key},
            name="api",
        )
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.api_key}"}, timeout=30
        )
        self.programs: list[Program] = [self.bridge, self.api]
        self.devices: dict[str, Program] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def make_bridge(self, name: str) -> Program:
        """Return another bridge worker, not started."""
        environment = {
            f"WFM_BRIDGE__{key.upper()}": _text(value) for key, value in self._bridge_settings.items()
        }
        return Program(
            [sys.executable, "-m", "broker_bridge"],
            self.folder / f"{name}.log",
            {**self.mqtt_environment("bridge"), **self._mongo(), **environment},
            name=name,
        )

    def make_device(
        self, device_id: str, settings: Mapping[str, object], arguments: Sequence[str] = ()
    ) -> Program:
        """Return a camera, not started; `settings` are those of section `device`."""
        own = {"id": device_id, "site": SITE, "data_dir": str(self.folder / device_id), **settings}
        environment = {f"WFM_DEVICE__{key.upper()}": _text(value) for key, value in own.items()}
        program = Program(
            [sys.executable, "-m", "device", *arguments],
            self.folder / f"{device_id}.log",
            {**self.mqtt_environment(device_id), **environment},
            name=device_id,
        )
        self.programs.append(program)
        self.devices[device_id] = program
        return program

    def make_simulator(
        self, device_id: str, folder: Path, *, count: int, rate: float, arguments: Sequence[str] = ()
    ) -> Program:
        """Return a simulated camera, not started; its id ends in -001.

        Its data lies in `folder`/`device_id`.
        """
        options = {
            "--prefix": device_id.removesuffix("-001"),
            "--site": SITE,
            "--rate": str(rate),
            "--count": str(count),
            "--data-dir": str(folder / device_id),
        }
        program = Program(
            [sys.executable, "-m", "device", "simulate", *chain.from_iterable(options.items()), *arguments],
            folder / f"{device_id}.log",
            self.mqtt_environment(device_id),
            name=device_id,
        )
        self.programs.append(program)
        return program

    def start_servers(self) -> None:
        """Start broker and database and wait until both are ready."""
        self.broker.start()
        self.mongod.start()

    def start_backend(self) -> None:
        """Start bridge and API; wait until the bridge is connected and the API answers."""
        self.bridge.start()
        self.api.start()
        self.bridge.wait_for_line("connected to the broker", _READY_SECONDS)
        self.api.wait_until(self._api_ready, "answer /readyz", _READY_SECONDS)

    def _api_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self) -> dict[str, str]:
        """Stop everything in order.

        Return the programs that ignored SIGTERM, with the reason.
        """
        failures = {}
        self.http.close()
        for program in reversed(self.programs):
            try:
                if program.running:
                    program.stop()
            except ProgramError as error:
                failures[program.name] = str(error)
                program.kill()
        for server in (self.broker, self.mongod):
            if server.program.running:
                # A server that a test has frozen does not receive the signal.
                server.program.thaw()
                server.stop()
        return failures

    def __enter__(self) -> "LocalFleet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def mqtt_environment(self, user: str) -> dict[str, str]:
        """Return the environment of a program that logs in at the broker as `user`."""
        return {
            "WFM_MQTT__HOST": self.broker.host,
            "WFM_MQTT__PORT": str(self.broker.port),
            "WFM_MQTT__USERNAME": user,
            "WFM_MQTT__PASSWORD": self.broker.users[user],
        }

    def _mongo(self) -> dict[str, str]:
        return {"WFM_MONGO__URI": self.mongod.uri, "WFM_MONGO__DATABASE": self.database}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
