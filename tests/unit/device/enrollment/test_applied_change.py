"""The part of a message's changes that applies to a device."""

from broker_bridge.contract.messages import Removal, WireTemplate
from device.enrollment.applied_change import plan_change
from tests.device_samples import DIMENSION, SPACE, person, vector


def test_templates_of_other_spaces_and_invalid_ones_are_left_out() -> None:
    """The error names the identity and the template without a vector.

    The other templates apply.
    """
    good, other = person("A", 1, 5), person("A", 1, 6, space="gait:test-4")
    bad = WireTemplate(template_id="t9", space=SPACE, vector=vector(1, 4))
    mixed = good.model_copy(update={"templates": [bad, *other.templates, *good.templates]})

    change = plan_change([mixed, person("B", 2)], [], {SPACE: DIMENSION})

    assert change.upserts == (good, person("B", 2))
    assert change.error is not None
    assert change.error.code == "vector-invalid"
    assert "t9 of A" in change.error.detail


def test_each_identity_counts_once_at_the_highest_version() -> None:
    """The order inside the message does not matter."""
    change = plan_change(
        [person("A", 5), person("A", 3), person("B", 2), person("C", 9)],
        [Removal(user_id="B", version=4), Removal(user_id="C", version=8), Removal(user_id="D", version=1)],
        {SPACE: DIMENSION},
    )
    assert {upsert.user_id: upsert.version for upsert in change.upserts} == {"A": 5, "C": 9}
    assert set(change.removals) == {"B", "D"}
