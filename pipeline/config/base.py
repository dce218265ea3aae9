"""The base of every parameter model: frozen, strict, described field by field."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Parameters of one stage: immutable, unknown names refused, each field described under it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def fingerprint(self) -> str:
        """Content hash of the values: equal parameters give equal strings, in any process.

        Returns:
            64 hex digits, SHA-256 of the canonical JSON.
        """
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
