"""Run a real Mosquitto on loopback with passwords and the production access rules."""

import getpass
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from string import Template

from .ports import free_port
from .program import ROOT, Program, ProgramError

TEMPLATES = ROOT / "deploy" / "mosquitto"
_READY_SECONDS = 60.0


class Mosquitto:
    """A broker with its files in `folder`.

    `users` maps user name to password; `bridge` and `operator` have the rights that `deploy/mosquitto/acl`
    gives them, `admin` may do everything, every other name is a device. `sites` maps device to the site
    whose topics it may read.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        users: Mapping[str, str] | None = None,
        sites: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port(1883)
        self.users = dict(users or {"admin": "admin"})
        self.sites = dict(sites or {})
        self.program = Program([find_mosquitto(), "-c", folder / "mosquitto.conf"], folder / "mosquitto.log")

    def start(self) -> "Mosquitto":
        """Start the broker and wait until it accepts a CONNECT."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self.program.start()
        self._wait_for_login(next(iter(self.users)))
        return self

    def stop(self) -> None:
        """Stop the broker orderly: sessions and retained messages are saved."""
        self.program.stop()

    def kill(self) -> None:
        """Kill the broker: unsaved sessions and messages are lost."""
        self.program.kill()

    def restart(self) -> None:
        """Start again on the same port and files, after an orderly stop if it still runs."""
        if self.program.running:
            self.stop()
        self.start()

    def add_device(self, device_id: str, password: str, site: str) -> None:
        """Admit one more device while the broker runs."""
        self.users[device_id] = password
        self.sites[device_id] = site
        self._write_configuration()
        os.kill(self.program.pid, signal.SIGHUP)
        self._wait_for_login(device_id)

    def _write_configuration(self) -> None:
        values = {
            "common": TEMPLATES / "common",
            "folder": self.folder,
            "port": self.port,
            # Started by root, Mosquitto would switch to the user `mosquitto`, which cannot write `folder`.
            "user": getpass.getuser(),
        }
        template = Template((TEMPLATES / "local.conf.template").read_text(encoding="utf-8"))
        (self.folder / "mosquitto.conf").write_text(template.substitute(values), encoding="utf-8")
        (self.folder / "acl").write_text(self._acl(), encoding="utf-8")
        self._write_passwords()

    def _acl(self) -> str:
        rules = [(TEMPLATES / "acl").read_text(encoding="utf-8")]
        if "admin" in self.users:
            rules.append("user admin\ntopic readwrite #\ntopic read $SYS/#\n")
        rules += [f"user {device}\ntopic read wfm/v1/site/{site}/#\n" for device, site in self.sites.items()]
        return "\n".join(rules)

    def _write_passwords(self) -> None:
        file = self.folder / "passwords.new"
        file.touch(mode=0o600)
        file.write_text("".join(f"{user}:{password}\n" for user, password in self.users.items()))
        # -U replaces the passwords in the file by their hashes, all at once.
        subprocess.run([find_mosquitto("mosquitto_passwd"), "-U", file], check=True, capture_output=True)
        file.replace(self.folder / "passwords")

    def _wait_for_login(self, user: str) -> None:
        self.program.wait_until(
            lambda: _accepts(self.port, user, self.users[user]), f"let {user!r} log in", _READY_SECONDS
        )


def find_mosquitto(name: str = "mosquitto") -> str:
    """Return the path of the broker or one of its tools; raises ProgramError."""
    # Debian keeps the broker in /usr/sbin, which is not on every PATH.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if path is None:
        raise ProgramError(
            f"{name} is not installed; `make setup` installs it, or `apt-get install mosquitto`"
        )
    return path


def _accepts(port: int, user: str, password: str) -> bool:
    """Return whether the broker accepts a CONNECT of MQTT 3.1.1."""
    body = _field("MQTT") + b"\x04\xc2\x00\x0a" + _field("probe") + _field(user) + _field(password)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(bytes([0x10, len(body)]) + body + b"\xe0\x00")
            return connection.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False


def _field(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data
