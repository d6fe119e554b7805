"""Generate the walkers' ways between cameras and through pictures."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .course import FRAME_SECONDS, FRAME_SIZE, Course

Box = tuple[float, float, float, float]
"""`x, y, width, height` in pixels of the frame, as on the wire."""

# A walker is on two cameras at once only where their views overlap.
_WALK_SECONDS = 1.0
_HEIGHTS = (120.0, 420.0)
_WIDTH_SHARE = 0.4
_PIXELS_PER_SECOND = (10.0, 120.0)
_MEETING_SECONDS = 20.0


@dataclass(frozen=True)
class Appointment:
    """A fixed visit of a walker to a camera: from `at`, for `seconds`."""

    at: float
    camera: int
    seconds: float


@dataclass(frozen=True)
class Visit:
    """A walker's stay in a camera's view.

    From `start` to `end`, in seconds since the start of the course.
    """

    camera: int
    start: float
    end: float


@dataclass(frozen=True)
class Path:
    """A way through a picture.

    `start` and `end` are `(x, y, height)` of the box in pixels.
    """

    start: tuple[float, float, float]
    end: tuple[float, float, float]

    @classmethod
    def through(cls, seconds: float, random: np.random.Generator) -> "Path":
        """Draw a path at a walking pace, inside the frame."""
        first, last = random.uniform(*_HEIGHTS, size=2)
        # The height changes slowly: it stands for the distance to the camera.
        last = first + (last - first) * min(1.0, seconds / 10)
        x, y = _position_in_frame(float(random.random()), float(random.random()), first)
        way = random.uniform(*_PIXELS_PER_SECOND) * seconds
        angle = random.uniform(0, 2 * math.pi)
        end = _inside(x + way * math.cos(angle), y + way * math.sin(angle) / 4, last)
        return cls((x, y, first), (*end, last))

    def at(self, share: float) -> Box:
        """Return the box after `share` (0..1) of the way."""
        x, y, height = (a + (b - a) * share for a, b in zip(self.start, self.end, strict=True))
        width = _WIDTH_SHARE * height
        return x - width / 2, y - height / 2, width, height


def _position_in_frame(across: float, down: float, height: float) -> tuple[float, float]:
    width, (frame_width, frame_height) = _WIDTH_SHARE * height, FRAME_SIZE
    return width / 2 + across * (frame_width - width), height / 2 + down * (frame_height - height)


def _inside(x: float, y: float, height: float) -> tuple[float, float]:
    left, top = _position_in_frame(0, 0, height)
    right, bottom = _position_in_frame(1, 1, height)
    return min(max(x, left), right), min(max(y, top), bottom)


def to_frame(at: float) -> float:
    """Return the time of the next frame at or after `at`, in seconds."""
    return round(math.ceil(at / FRAME_SECONDS - 1e-6) * FRAME_SECONDS, 3)


def arrange_appointments(course: Course, random: np.random.Generator) -> dict[int, list[Appointment]]:
    """Return each walker's appointments by time: crowds, and meetings of look-alikes.

    Appointments of one walker do not overlap. Raises ValueError if a pair finds no time to meet.
    """
    calendar: dict[int, list[Appointment]] = defaultdict(list)
    for crowd in course.crowds:
        appointment = Appointment(crowd.at, crowd.camera, crowd.seconds)
        free = [walker for walker in range(course.walkers) if _is_free(calendar[walker], appointment)]
        for walker in random.permutation(free)[: crowd.walkers]:
            calendar[int(walker)].append(appointment)
    if course.look_alikes_meet:
        for pair in range(course.look_alike_pairs):
            _schedule_meeting(calendar, (2 * pair, 2 * pair + 1), course, random)
    return {walker: sorted(booked, key=lambda item: item.at) for walker, booked in calendar.items() if booked}


def _schedule_meeting(
    calendar: dict[int, list[Appointment]],
    pair: tuple[int, int],
    course: Course,
    random: np.random.Generator,
) -> None:
    seconds = min(_MEETING_SECONDS, course.seconds / 4)
    for _ in range(100):
        at = random.uniform(0, course.seconds - seconds)
        appointment = Appointment(at, int(random.integers(course.cameras)), seconds)
        if all(_is_free(calendar[walker], appointment) for walker in pair):
            for walker in pair:
                calendar[walker].append(appointment)
            return
    raise ValueError(f"look-alikes {pair} find no time to meet: make the crowds fewer or shorter")


def _is_free(appointments: Sequence[Appointment], wanted: Appointment) -> bool:
    return all(
        wanted.at + wanted.seconds + _WALK_SECONDS < booked.at
        or booked.at + booked.seconds + _WALK_SECONDS < wanted.at
        for booked in appointments
    )


def walk_cameras(
    course: Course,
    transition_shares: NDArray[np.float64],
    appointments: Sequence[Appointment],
    random: np.random.Generator,
) -> Iterator[Visit]:
    """Yield one walker's visits in order.

    `transition_shares` is `Course.transition_matrix()`; `appointments` are sorted by time.
    """
    upcoming = list(appointments)
    now = random.uniform(0, course.arrivals * course.seconds)
    camera = int(random.integers(course.cameras))
    while now < course.seconds:
        end = now + random.uniform(*course.dwell)
        if upcoming and end > upcoming[0].at - _WALK_SECONDS:
            appointment = upcoming.pop(0)
            end = appointment.at - _WALK_SECONDS
            if end > now:
                yield Visit(camera, to_frame(now), end)
            camera, now, end = appointment.camera, appointment.at, appointment.at + appointment.seconds
        yield Visit(camera, to_frame(now), min(end, course.seconds))
        pause = course.away if random.random() < course.away_share else course.gap
        now = end + random.uniform(*pause)
        camera = int(random.choice(course.cameras, p=transition_shares[camera]))
