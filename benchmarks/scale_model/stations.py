"""SimPy stations: programs with a queue, and the cores that they share."""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

Process = Generator[simpy.Event, Any, None]
_TURN = 64
"""A program takes at most so many waiting jobs at once."""
_SLICE = 0.005
"""The kernel lets another program run after so many seconds."""


@dataclass(frozen=True)
class Job:
    """Work of `seconds` CPU; `then` is called at its end."""

    seconds: float
    then: Callable[[], object] = lambda: None


class Machine:
    """Cores that programs share. Without a number, each program has its own.

    Other work takes them away now and then: a slice takes `slowdown` times its CPU in the mean, with an
    exponential tail.
    """

    def __init__(
        self, env: simpy.Environment, random: np.random.Generator, cores: int | None, slowdown: float
    ) -> None:
        self._env = env
        self._random = random
        self._cores = simpy.Resource(env, cores) if cores else None
        self._slowdown = slowdown

    def spend(self, seconds: float) -> Process:
        """Compute for so many seconds of CPU."""
        left = seconds
        while left > 0:
            part = min(left, _SLICE)
            left -= part
            taken = part * (1 + self._random.exponential(self._slowdown - 1)) if self._slowdown > 1 else part
            if self._cores is None:
                yield self._env.timeout(taken)
            else:
                with self._cores.request() as turn:
                    yield turn
                    yield self._env.timeout(taken)


class Station:
    """A program with a queue and `lanes` threads; `busy` counts their seconds of CPU."""

    def __init__(self, env: simpy.Environment, machine: Machine, lanes: int = 1) -> None:
        self._env = env
        self._machine = machine
        self._idle: list[simpy.Event] = []
        self.lanes = lanes
        self.queue: deque[Job] = deque()
        self.busy = 0.0
        for _ in range(lanes):
            env.process(self._serve())

    def put(self, job: Job) -> None:
        """Queue a job."""
        self.queue.append(job)
        if self._idle:
            self._idle.pop().succeed()

    def run(self, seconds: float) -> simpy.Event:
        """Queue work; the event comes at its end."""
        done = self._env.event()
        self.put(Job(seconds, done.succeed))
        return done

    def _serve(self) -> Process:
        while True:
            if not self.queue:
                idle = self._env.event()
                self._idle.append(idle)
                yield idle
                continue
            at_once = _TURN if self.lanes == 1 else 1
            turn = [self.queue.popleft() for _ in range(min(at_once, len(self.queue)))]
            seconds = sum(job.seconds for job in turn)
            yield from self._machine.spend(seconds)
            self.busy += seconds
            for job in turn:
                job.then()


class Batcher:
    """Takes what has come as a batch, prepares it and then writes it.

    A full batch is prepared while the one before is written; one that is not full gathers until no other is
    in work.
    """

    def __init__(
        self,
        env: simpy.Environment,
        most: int,
        prepare: Callable[[], Process],
        write: Callable[[list[float]], Process],
    ) -> None:
        self._env = env
        self._most = most
        self._prepare = prepare
        self._write = write
        self._wake: simpy.Event | None = None
        self.waiting: deque[float] = deque()
        env.process(self._run())

    def add(self, since: float) -> None:
        """Add one unit that has been on its way since `since`."""
        self.waiting.append(since)
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None

    def _run(self) -> Process:
        writing: simpy.Process | None = None
        while True:
            if not self.waiting:
                self._wake = self._env.event()
                yield self._wake
            batch = [self.waiting.popleft() for _ in range(min(self._most, len(self.waiting)))]
            yield from self._prepare()
            if writing is not None:
                yield writing
            writing = self._env.process(self._write(batch))
            if len(self.waiting) < self._most:
                yield writing
