"""Where people are and when: from camera to camera, and through each camera's picture."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .course import FRAME_SECONDS, FRAME_SIZE, Course

Box = tuple[float, float, float, float]
"""`x, y, width, height` in pixels of the frame, as on the wire."""

# Nobody is on two cameras at once, other than where their views overlap.
_WALK_SECONDS = 1.0
_HEIGHTS = (120.0, 420.0)
_WIDTH_SHARE = 0.4
_PIXELS_PER_SECOND = (10.0, 120.0)
_MEETING_SECONDS = 20.0


@dataclass(frozen=True)
class Appointment:
    """Somebody has to be on a camera: from `at`, for `seconds`."""

    at: float
    camera: int
    seconds: float


@dataclass(frozen=True)
class Visit:
    """A person in a camera's view, from `start` to `end` (seconds since the course began)."""

    camera: int
    start: float
    end: float


@dataclass(frozen=True)
class Path:
    """A way through a picture: `(x, y)` of the centre and height in pixels, at its start and its end."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]

    @classmethod
    def through(cls, seconds: float, random: np.random.Generator) -> "Path":
        """At a walking pace, inside the frame."""
        first, last = random.uniform(*_HEIGHTS, size=2)
        # Whoever turns keeps the size, so that it is one of how near they are.
        last = first + (last - first) * min(1.0, seconds / 10)
        x, y = _place(float(random.random()), float(random.random()), first)
        way = random.uniform(*_PIXELS_PER_SECOND) * seconds
        angle = random.uniform(0, 2 * math.pi)
        end = _inside(x + way * math.cos(angle), y + way * math.sin(angle) / 4, last)
        return cls((x, y, first), (*end, last))

    def at(self, share: float) -> Box:
        """The box when `share` (0..1) of the way is gone."""
        x, y, height = (a + (b - a) * share for a, b in zip(self.start, self.end, strict=True))
        width = _WIDTH_SHARE * height
        return x - width / 2, y - height / 2, width, height


def _place(across: float, down: float, height: float) -> tuple[float, float]:
    width, (frame_width, frame_height) = _WIDTH_SHARE * height, FRAME_SIZE
    return width / 2 + across * (frame_width - width), height / 2 + down * (frame_height - height)


def _inside(x: float, y: float, height: float) -> tuple[float, float]:
    left, top = _place(0, 0, height)
    right, bottom = _place(1, 1, height)
    return min(max(x, left), right), min(max(y, top), bottom)


def to_frame(at: float) -> float:
    """The instant of the next picture."""
    return round(math.ceil(at / FRAME_SECONDS - 1e-6) * FRAME_SECONDS, 3)


def arrange(course: Course, random: np.random.Generator) -> dict[int, list[Appointment]]:
    """Who has to be where: those of the crowds, and the look-alikes who meet. Nobody is in two places."""
    calendar: dict[int, list[Appointment]] = defaultdict(list)
    for crowd in course.crowds:
        appointment = Appointment(crowd.at, crowd.camera, crowd.seconds)
        free = [person for person in range(course.people) if _is_free(calendar[person], appointment)]
        for person in random.permutation(free)[: crowd.people]:
            calendar[int(person)].append(appointment)
    if course.meet:
        for pair in range(course.pairs):
            _let_meet(calendar, (2 * pair, 2 * pair + 1), course, random)
    return {person: sorted(all_, key=lambda one: one.at) for person, all_ in calendar.items() if all_}


def _let_meet(
    calendar: dict[int, list[Appointment]],
    pair: tuple[int, int],
    course: Course,
    random: np.random.Generator,
) -> None:
    seconds = min(_MEETING_SECONDS, course.seconds / 4)
    for _ in range(100):
        at = random.uniform(0, course.seconds - seconds)
        appointment = Appointment(at, int(random.integers(course.cameras)), seconds)
        if all(_is_free(calendar[person], appointment) for person in pair):
            for person in pair:
                calendar[person].append(appointment)
            return
    raise ValueError(f"people {pair} find no time to meet: fewer or shorter crowds leave them some")


def _is_free(appointments: Sequence[Appointment], wanted: Appointment) -> bool:
    return all(
        wanted.at + wanted.seconds + _WALK_SECONDS < one.at
        or one.at + one.seconds + _WALK_SECONDS < wanted.at
        for one in appointments
    )


def walk(
    course: Course,
    ways: NDArray[np.float64],
    appointments: Sequence[Appointment],
    random: np.random.Generator,
) -> Iterator[Visit]:
    """One person's visits, one after the other; `ways` as Course.likely_ways, `appointments` by time."""
    coming = list(appointments)
    now = random.uniform(0, course.arrivals * course.seconds)
    camera = int(random.integers(course.cameras))
    while now < course.seconds:
        end = now + random.uniform(*course.dwell)
        if coming and end > coming[0].at - _WALK_SECONDS:
            appointment = coming.pop(0)
            end = appointment.at - _WALK_SECONDS
            if end > now:
                yield Visit(camera, to_frame(now), end)
            camera, now, end = appointment.camera, appointment.at, appointment.at + appointment.seconds
        yield Visit(camera, to_frame(now), min(end, course.seconds))
        pause = course.away if random.random() < course.away_share else course.gap
        now = end + random.uniform(*pause)
        camera = int(random.choice(course.cameras, p=ways[camera]))
