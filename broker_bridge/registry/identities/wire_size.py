"""Estimate how many bytes an identity takes of a JSON message."""

from collections.abc import Mapping

from .model import Identity

# Keys, version, flag and punctuation, beside ids, names and vectors.
_IDENTITY_BYTES = 160
_TEMPLATE_BYTES = 150
# A character of a name takes at most this many bytes in JSON.
_ESCAPED_CHARACTER_BYTES = 6


def identity_bytes(user_id: str, display_name: str | None) -> int:
    """Return about how many bytes an identity without templates takes of a message."""
    return _IDENTITY_BYTES + len(user_id) + _ESCAPED_CHARACTER_BYTES * len(display_name or "")


def template_bytes(vector_bytes: int) -> int:
    """Return about how many bytes of a message a template takes.

    `vector_bytes` is the size of its vector.
    """
    return vector_bytes * 4 // 3 + _TEMPLATE_BYTES


def wire_bytes(identity: Identity, dimensions: Mapping[str, int]) -> int:
    """Return about how many bytes of a message an identity takes.

    Its templates in the spaces of `dimensions` are counted. `dimensions` maps space ids to dimensions;
    templates of other spaces are not counted.
    """
    return identity_bytes(identity.user_id, identity.display_name) + sum(
        holding.digest.count * template_bytes(4 * dimensions[holding.space])
        for holding in identity.sent_holdings
        if holding.space in dimensions
    )
