"""The metrics of answers with known faults are known."""

import pytest

from fleet.tracks.metrics import TrackingScore, TrackingTally

SECONDS = 100


def score(*walkers: list[int | None], look_alike_group: tuple[int, ...] = (0, 1, 2)) -> TrackingScore:
    """Return the score of ids per second; each walker has a list and a camera."""
    tally = TrackingTally(lambda walker: look_alike_group[walker])
    for at in range(SECONDS):
        for walker, ids in enumerate(walkers):
            tally.add(walker=walker, camera=walker, at=float(at), global_id=ids[at])
    return tally.score()


def test_correct_answers_have_the_best_score() -> None:
    """One id per walker gives IDF1 1 and no mistakes."""
    assert score([7] * SECONDS, [8] * SECONDS) == TrackingScore(
        observations=200, answered=200, walkers=2, ids=2, idf1=1.0, switches=0, fragmentations=0,
        merged=0, mixed=0, reused=0, split=0,
    )  # fmt: skip


def test_two_walkers_under_one_id_are_merged() -> None:
    """Half of the answers are wrong, although no id ever changes."""
    result = score([7] * SECONDS, [7] * SECONDS)
    assert (result.merged, result.mixed, result.reused, result.switches) == (1, 1, 1, 0)
    assert result.idf1 == pytest.approx(0.5)


def test_look_alikes_under_one_id_are_mixed_and_not_reused() -> None:
    """A confusion of look-alikes is no reuse of an id."""
    result = score([7] * SECONDS, [7] * 5 + [8] * 95, look_alike_group=(0, 0, 2))
    assert (result.merged, result.mixed, result.reused, result.split) == (0, 1, 0, 1)
    assert result.switches == 1
    # 5 of 200 answers are of the wrong one: 5 false positives and 5 false negatives.
    assert result.idf1 == pytest.approx(0.975)


def test_a_second_id_of_a_walker_is_a_switch_and_a_split() -> None:
    """Only the longer part counts as correct."""
    result = score([7] * 60 + [9] * 40)
    assert (result.switches, result.split, result.ids, result.merged) == (1, 1, 2, 0)
    assert result.idf1 == pytest.approx(0.6)


def test_missing_answers_are_misses() -> None:
    """A gap is a fragmentation and no other mistake."""
    result = score([7] * 40 + [None] * 20 + [7] * 40)
    assert (result.answered, result.fragmentations, result.switches) == (80, 1, 0)
    assert result.idf1 == pytest.approx(2 * 80 / 180)


def test_the_score_without_answers_is_0() -> None:
    """No observation, or no answer, raises no error."""
    assert score([None] * SECONDS).idf1 == 0.0
    assert TrackingTally(int).score().idf1 == 0.0


def test_walkers_in_one_picture_match_their_own_answers() -> None:
    """An observation never matches the answer of another walker."""
    tally = TrackingTally(int)
    for at in range(SECONDS):
        swapped = at >= 90
        tally.add(walker=0, camera=0, at=float(at), global_id=8 if swapped else 7)
        tally.add(walker=1, camera=0, at=float(at), global_id=7 if swapped else 8)
    result = tally.score()
    assert result.idf1 == pytest.approx(0.9)
    assert (result.mixed, result.merged) == (2, 0)
    assert result.switches == 2
