"""Encode identities as JSON, byte for byte as the Upsert and Removal models do.

Building a model per template takes several times as long. The size of an identity on the wire is the size of
these bytes.
"""

import binascii
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from pydantic_core import to_json

from .embeddings import to_base64

_UUID_HEX_CHARACTERS = 32
_LONGEST_QUALITY = 1.2345678901234567e-05
_COMMA = 1
_NO_VECTOR = b'"vector":""'
_VECTOR_BEGIN, _VECTOR_END = b'"vector":"', b'"'


class TemplateFields(Protocol):
    """The fields of a template that stand on the wire."""

    @property
    def template_id(self) -> str: ...

    @property
    def space(self) -> str: ...

    @property
    def vector(self) -> bytes: ...

    @property
    def quality(self) -> float | None: ...


def encode_upsert(
    user_id: str,
    version: int,
    *,
    flag: str | None,
    display_name: str | None,
    templates: Sequence[TemplateFields],
) -> bytes:
    """Return the JSON of an Upsert."""
    fields: dict[str, Any] = {"user_id": user_id, "version": version}
    if flag is not None:
        fields["flag"] = flag
    if display_name is not None:
        fields["display_name"] = display_name
    fields["templates"] = [_template_fields(template) for template in templates]
    # Each vector is put in as bytes: as text in `fields` it would be copied and searched for escapes. No text
    # within JSON has an unescaped quote, so that only templates have this key.
    first, *further = to_json(fields).split(_NO_VECTOR)
    parts = [first]
    for template, part in zip(templates, further, strict=True):
        parts += (_VECTOR_BEGIN, binascii.b2a_base64(template.vector, newline=False), _VECTOR_END, part)
    return b"".join(parts)


def encode_removal(user_id: str, version: int) -> bytes:
    """Return the JSON of a Removal."""
    return to_json({"user_id": user_id, "version": version})


@lru_cache(maxsize=256)
def template_bytes(space: str, dimension: int) -> int:
    """Return the largest encoded size of a template whose id is a UUID in hex."""
    largest = _LargestTemplate("0" * _UUID_HEX_CHARACTERS, space, bytes(4 * dimension), _LONGEST_QUALITY)
    return len(to_json(_template_fields(largest))) + len(to_base64(largest.vector)) + _COMMA


class _LargestTemplate(NamedTuple):
    template_id: str
    space: str
    vector: bytes
    quality: float


def _template_fields(template: TemplateFields) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "template_id": template.template_id,
        "space": template.space,
    }
    quality = template.quality
    if quality is not None:
        fields["quality"] = quality
    fields["vector"] = ""
    return fields
