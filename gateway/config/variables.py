"""`${VAR}` and `${VAR:-default}` in the texts of routes.yaml; `$$` is a dollar sign.

The environment comes in as an argument. It fills in texts after the YAML was read, so no value of a
variable can add keys or entries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_VARIABLE = re.compile(
    r"\$(?:(?P<escape>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{))"
)


class VariableError(ValueError):
    """A variable that is not set, or a reference that is not well formed."""


def substitute(text: str, env: Mapping[str, str]) -> str:
    """Replace each reference by its value; `default` holds where it is unset or empty, as in sh.

    A `$` before anything but `{` and `$` is just a dollar sign. Raises VariableError.
    """

    def value_of(reference: re.Match[str]) -> str:
        if reference["escape"]:
            return "$"
        if reference["bad"]:
            raise VariableError(
                f"{text!r} is not a reference; write ${{NAME}} or ${{NAME:-default}}"
            )
        name, default = reference["name"], reference["default"]
        if default is not None:
            return env.get(name) or default.replace("$$", "$")
        if name not in env:
            raise VariableError(f"${{{name}}} is not set; set it or write ${{{name}:-default}}")
        return env[name]

    return _VARIABLE.sub(value_of, text)
