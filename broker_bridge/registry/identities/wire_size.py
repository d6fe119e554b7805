"""Compute the size of an identity on the wire without reading its templates."""

from collections.abc import Mapping

from broker_bridge.contract.identity_json import encode_upsert, template_bytes

from .model import Identity

_BARE_BYTES = len(encode_upsert("", 0, flag=None, display_name=None, templates=())) - len("0")


def wire_bytes(identity: Identity, dimensions: Mapping[str, int]) -> int:
    """Return the largest encoded size of an identity.

    `dimensions` maps space ids to dimensions; templates of other spaces are not counted.
    """
    size = _fields_bytes(identity)
    for holding in identity.holdings:
        if holding.space in dimensions and identity.may_be_sent(holding.space):
            size += holding.digest.count * template_bytes(holding.space, dimensions[holding.space])
    return size


def _fields_bytes(identity: Identity) -> int:
    if identity.flag is None and identity.display_name is None:
        # No character of a user id is escaped in JSON.
        return _BARE_BYTES + len(identity.user_id) + len(str(identity.version))
    encoded = encode_upsert(
        identity.user_id,
        identity.version,
        flag=identity.flag,
        display_name=identity.display_name,
        templates=(),
    )
    return len(encoded)
