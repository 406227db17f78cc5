"""What a watcher asks: one question about one service, one answer, or a named trouble.

The one rule: an answer is only what the registry itself said. Whatever else comes back, a page of a
load balancer or an answer without an index, is a SourceError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.core.model import Instance, Skipped
from gateway.core.watch import Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All instances of one service, sorted by key, as the registry has just told them.

    `skipped` names some of the entries that could not be used, `skipped_count` counts all of them.
    `has_leader` is false when the registry
    admits that nobody leads it, `is_filtered` true when it left something out for want of rights.
    """

    index: int
    instances: tuple[Instance, ...]
    skipped: tuple[Skipped, ...] = ()
    skipped_count: int = 0
    has_leader: bool = True
    is_filtered: bool = False


class SourceError(Exception):
    """A question was not answered: `trouble` names the kind, `detail` says it in words."""

    def __init__(
        self, trouble: Trouble, detail: str, *, retry_after_s: float | None = None
    ) -> None:
        self.trouble = trouble
        self.detail = detail
        self.retry_after_s = retry_after_s
        super().__init__(f"{trouble.value}: {detail}")


class Source(Protocol):
    """Whoever can be asked for the instances of a service."""

    async def query(self, service: str, *, index: int) -> Answer:
        """Ask for a service; with an index above 0, wait for a change since that index.

        Raises SourceError for everything that the network or the registry can do to us.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections that belong to this source."""
        ...
