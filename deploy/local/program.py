"""Run child processes with log files; a child never outlives this process."""

import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.02


class ProgramError(RuntimeError):
    """A program that did not start, get ready or stop.

    The message has its last output.
    """


class Program:
    """Run `args` from the repository's root, with the output appended to `log`.

    `env` overrides this process's environment, without its `WFM_` variables.

    The kernel kills the child (PR_SET_PDEATHSIG, through setpriv) when the thread that started it ends. So a
    thread of its own starts each child and waits for it: a short-lived thread may call `start`, and the child
    dies with this process even after `kill -9`. Ctrl-C reaches this process only.
    """

    def __init__(
        self, args: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, name: str = ""
    ) -> None:
        self.args = [str(arg) for arg in args]
        self.log = log
        self.env = dict(env or {})
        self.name = name or Path(self.args[0]).name
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise ProgramError(f"{self.name} was not started")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the child without waiting until it is ready; raises ProgramError."""
        if self.running:
            raise ProgramError(f"{self.name} is already running")
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ProgramError("setpriv is not on PATH; it belongs to util-linux")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        outcome: queue.Queue[subprocess.Popen[bytes] | OSError] = queue.Queue()
        command = [setpriv, "--pdeathsig", "KILL", *self.args]
        threading.Thread(target=self._keep, args=(command, outcome), daemon=True).start()
        process = outcome.get()
        if isinstance(process, OSError):
            raise ProgramError(f"{self.name} cannot be started: {process}") from process
        self._process = process

    def _keep(self, command: list[str], outcome: "queue.Queue[subprocess.Popen[bytes] | OSError]") -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WFM_")}
        try:
            with self.log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env={**inherited, "PYTHONUNBUFFERED": "1", **self.env},
                    start_new_session=True,
                )
        except OSError as error:
            outcome.put(error)
            return
        outcome.put(process)
        process.wait()

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for the end and return the exit status.

        Raises ProgramError after `timeout` s.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise self.failure(f"{self.name} has not ended within {timeout:g} s") from error

    def stop(self, timeout: float = 10.0) -> int:
        """Send SIGTERM and return the exit status.

        After `timeout` s kill and raise ProgramError.
        """
        self.process.terminate()
        try:
            return self.wait(timeout)
        except ProgramError:
            self.kill()
            raise

    def kill(self) -> None:
        """Send SIGKILL and wait for the end; do nothing if the program does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Send SIGSTOP: connections stay open, but nothing is answered until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def output(self) -> str:
        """Return the output since the last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")

    def wait_for_line(self, pattern: str, timeout: float = 60.0) -> str:
        """Return the first line since the last start that matches `pattern`; wait for it."""
        found: list[str] = []

        def printed() -> bool:
            found.extend(line for line in self.output().splitlines() if re.search(pattern, line))
            return bool(found)

        self.wait_until(printed, f"print a line with {pattern!r}", timeout)
        return found[0]

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `condition` holds.

        Raises ProgramError at the program's end or `timeout`.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.running:
                raise self.failure(f"{self.name} ended (status {self.process.returncode}) and did not {what}")
            if time.monotonic() > deadline:
                raise self.failure(f"{self.name} did not {what} within {timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def failure(self, sentence: str) -> ProgramError:
        """Return an error with the end of the output."""
        tail = "\n".join(self.output().splitlines()[-20:])
        return ProgramError(f"{sentence}. The end of {self.log}:\n{tail}")
