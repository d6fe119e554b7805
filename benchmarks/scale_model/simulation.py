"""Simulate a deployment: every message passes broker, bridge and MongoDB."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import simpy

from benchmarks.stats import Latency

from .deployment import Deployment
from .stations import Batcher, Job, Machine, Process, Station
from .unit_costs import Cost

_MOST_MESSAGES = 150_000
_SECONDS = 10.0
_WARM_UP = 0.2
_PAGE = 60
"""Identities in one page of a first sync."""


@dataclass(frozen=True)
class Outcome:
    """What a run of `seconds` has shown.

    `busy` is each part's share of its capacity, `latency` from a camera's publish to its receipt (None: no
    receipt came), `receipts` a second, `backlog` how many events wait at the end.
    """

    seconds: float
    busy: dict[str, float]
    latency: Latency | None
    receipts: float
    backlog: int


class Simulation:
    """One run; `random` decides the arrivals."""

    def __init__(self, deployment: Deployment, random: np.random.Generator) -> None:
        self._deployment = deployment
        self._costs = deployment.costs
        self._random = random
        self._env = env = simpy.Environment()
        machine = Machine(env, random, deployment.machine_cores, deployment.slowdown)
        self._broker = Station(env, machine, deployment.brokers)
        self._mongod = Station(env, machine, deployment.mongod_cores)
        self._leader = Station(env, machine)
        self._tracker = Station(env, machine, deployment.trackers)
        self._workers = [Station(env, machine) for _ in range(deployment.workers)]
        self._batchers = [
            Batcher(
                env,
                deployment.batch,
                partial(self._prepare, worker, self._costs.event_batch),
                partial(self._write_events, number),
            )
            for number, worker in enumerate(self._workers)
        ]
        # What the broker has sent ahead to each worker, and keeps back for it.
        self._ahead = [0] * deployment.workers
        self._kept: list[deque[Job]] = [deque() for _ in self._workers]
        self._players = Station(env, machine)
        beats = partial(self._prepare, self._leader, self._costs.heartbeat_batch)
        self._beats = Batcher(env, deployment.batch_events, beats, self._write_heartbeats)
        # Every batch of events takes its numbers from one document: one commits after the other.
        self._numbering = simpy.Resource(env, 1)
        self._disk = simpy.Resource(env, 1)
        self._turn = 0
        self._sent = 0
        self._took: list[tuple[float, float]] = []

    def run(self, seconds: float = _SECONDS) -> Outcome:
        """Run for so many seconds, or fewer if these have too many messages."""
        rates = self._deployment.rates
        messages = rates["event"] + rates["heartbeat"] + rates["observation"]
        seconds = min(seconds, _MOST_MESSAGES / max(1.0, messages))
        self._env.process(self._arrive(seconds))
        self._env.run(until=seconds)
        begin = _WARM_UP * seconds
        took = [age for at, age in self._took if at >= begin]
        return Outcome(
            seconds,
            {name: busy / seconds for name, busy in self._busy()},
            Latency.from_seconds(took) if took else None,
            len(took) / (seconds - begin),
            self._sent - len(self._took),
        )

    def _busy(self) -> Iterator[tuple[str, float]]:
        slowdown = self._deployment.slowdown
        yield "broker", self._broker.busy * slowdown / self._broker.lanes
        workers = sum(worker.busy for worker in self._workers)
        yield "bridge workers", workers * slowdown / len(self._workers)
        yield "bridge leader", self._leader.busy * slowdown
        yield "trackers", self._tracker.busy * slowdown / self._tracker.lanes
        yield "MongoDB primary", self._mongod.busy * slowdown / self._mongod.lanes

    # Arrivals

    def _arrive(self, seconds: float) -> Process:
        """Hand every unit to its first station at a time of its own."""
        rates = self._deployment.rates
        rates["synced_identity"] /= _PAGE
        actions: dict[str, Callable[[], None]] = {
            "event": self._event,
            "heartbeat": self._heartbeat,
            "observation": self._observation,
            "change": self._change,
            "synced_identity": self._page,
        }
        counts = [int(self._random.poisson(rates[kind] * seconds)) for kind in actions]
        times = self._random.uniform(0, seconds, sum(counts))
        order = times.argsort()
        kinds = np.repeat(np.arange(len(counts)), counts)[order]
        of_kind = list(actions.values())
        for at, kind in zip(times[order].tolist(), kinds.tolist(), strict=True):
            if at > self._env.now:
                yield self._env.timeout(at - self._env.now)
            of_kind[kind]()

    def _event(self) -> None:
        self._sent += 1
        number = self._turn = (self._turn + 1) % len(self._workers)
        cost, since = self._deployment.event, self._env.now
        batcher = self._batchers[number]
        receive = Job(cost.bridge / 1e6, lambda: batcher.add(since))
        through = Job(cost.broker / 1e6, lambda: self._forward(number, receive))
        if self._deployment.player_us:
            self._players.put(Job(self._deployment.player_us / 1e6, lambda: self._broker.put(through)))
        else:
            self._broker.put(through)

    def _forward(self, number: int, receive: Job) -> None:
        """Send an event to a worker, unless too many of its events are not acknowledged."""
        if self._ahead[number] < self._deployment.receive_maximum:
            self._ahead[number] += 1
            self._workers[number].put(receive)
        else:
            self._kept[number].append(receive)

    def _acknowledge(self, number: int, count: int) -> None:
        self._ahead[number] -= count
        kept = self._kept[number]
        for _ in range(min(count, len(kept))):
            self._forward(number, kept.popleft())

    def _heartbeat(self) -> None:
        cost, since = self._costs.heartbeat, self._env.now
        receive = Job(cost.bridge / 1e6, lambda: self._beats.add(since))
        self._broker.put(Job(cost.broker / 1e6, lambda: self._leader.put(receive)))

    def _observation(self) -> None:
        self._pass(self._costs.observation, self._tracker)

    def _page(self) -> None:
        self._turn = (self._turn + 1) % len(self._workers)
        self._pass(self._costs.synced_identity, self._workers[self._turn], _PAGE)

    def _change(self) -> None:
        listeners = self._deployment.listeners
        self._pass(self._costs.change, self._leader)
        self._pass(self._costs.change_camera, self._leader, listeners)

    def _pass(self, cost: Cost, station: Station, times: float = 1.0) -> None:
        """Send units through broker, a program and MongoDB, without batches."""
        scale = times / 1e6
        write = Job(cost.mongod * scale)
        work = Job(cost.bridge * scale, lambda: self._mongod.put(write))
        self._broker.put(Job(cost.broker * scale, lambda: station.put(work)))

    # Batches

    def _prepare(self, program: Station, batch: Cost) -> Process:
        # The program computes between its calls of MongoDB; half before and half after is near enough.
        yield program.run(batch.bridge / 2e6)

    def _write_events(self, number: int, batch: list[float]) -> Process:
        costs, count, worker = self._costs, len(batch), self._workers[number]
        with self._numbering.request() as turn:
            yield turn
            yield self._mongod.run((costs.event_batch.mongod + count * self._deployment.event.mongod) / 1e6)
            yield from self._flush()
        yield worker.run(costs.event_batch.bridge / 2e6)
        self._acknowledge(number, count)
        answering = self._env.process(self._answer(worker, batch))
        if len(self._batchers[number].waiting) < self._deployment.batch:
            yield answering

    def _answer(self, worker: Station, batch: list[float]) -> Process:
        costs, cameras = self._costs, self._deployment.cameras
        receipts = cameras * (1 - (1 - 1 / cameras) ** len(batch))
        yield worker.run(receipts * costs.receipt.bridge / 1e6)
        self._mongod.put(Job(receipts * costs.receipt.mongod / 1e6))
        sending = (receipts * costs.receipt.broker + costs.event_batch.broker) / 1e6
        self._broker.put(Job(sending, partial(self._note, batch)))

    def _write_heartbeats(self, batch: list[float]) -> Process:
        costs = self._costs
        yield self._mongod.run((costs.heartbeat_batch.mongod + len(batch) * costs.heartbeat.mongod) / 1e6)
        yield from self._flush()
        yield self._leader.run(costs.heartbeat_batch.bridge / 2e6)

    def _flush(self) -> Process:
        with self._disk.request() as turn:
            yield turn
            yield self._env.timeout(self._costs.flush_ms / 1e3)

    def _note(self, batch: list[float]) -> None:
        now = self._env.now
        self._took += [(now, now - since) for since in batch]
