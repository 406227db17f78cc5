"""What all entries of routes.yaml are made of: strict models, and those that override a policy.

The one rule: a key of a policy has no default of its own. Unset means that the next wider place
decides, and in the end `gateway.core.policy`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

_UNITS = ("", "_s", "_bytes")


class Entry(BaseModel):
    """What all entries share: unknown keys are errors, values are not converted on the quiet."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Policy(Entry):
    """Keys that override those of a core policy, one by one."""

    CORE: ClassVar[Any]

    def overrides(self) -> dict[str, Any]:
        """List what is set here, by the name of the field in the core's policy."""
        return {self.core_field(key): getattr(self, key) for key in self.model_fields_set}

    @classmethod
    def core_field(cls, key: str) -> str:
        """Name the field of the core's policy that a key sets: the same, or with its unit."""
        names = {field.name for field in dataclasses.fields(cls.CORE)}
        return next(key + unit for unit in _UNITS if key + unit in names)
