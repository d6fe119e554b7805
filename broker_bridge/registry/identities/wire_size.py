"""Compute the size of an identity on the wire without reading its templates."""

from collections.abc import Mapping

from broker_bridge.contract.identity_json import encode_upsert, template_bytes

from .model import Identity


def wire_bytes(identity: Identity, dimensions: Mapping[str, int]) -> int:
    """Return the largest encoded size of an identity.

    `dimensions` maps space ids to dimensions; templates of other spaces are not counted.
    """
    without_templates = encode_upsert(
        identity.user_id,
        identity.version,
        flag=identity.flag,
        display_name=identity.display_name,
        templates=(),
    )
    return len(without_templates) + sum(
        holding.digest.count * template_bytes(holding.space, dimensions[holding.space])
        for holding in identity.sent_holdings
        if holding.space in dimensions
    )
