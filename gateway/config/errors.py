"""The exception that carries everything that is wrong with a routes.yaml."""

from __future__ import annotations

from gateway.core.config import Problem


class ConfigError(ValueError):
    """A routes.yaml that cannot be used; `problems` are all that is wrong, sorted by place."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
