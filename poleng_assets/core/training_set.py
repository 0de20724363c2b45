"""What a model is trained on, as one name: the field studies and the hash of their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def training_data_hash(studies: Mapping[str, str]) -> str:
    """Return one hash for a set of field studies, whatever their order.

    Args:
        studies: content hash of each field study, by its id.
    """
    listed = "\n".join(f"{name} {studies[name]}" for name in sorted(studies))
    return hashlib.sha256(listed.encode()).hexdigest()
