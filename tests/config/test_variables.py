"""${VAR} in texts."""

from __future__ import annotations

import pytest

from gateway.config.variables import VariableError, substitute

ENV = {"NAME": "value", "EMPTY": "", "DOLLAR": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${NAME}", "value"),
        ("a-${NAME}-${NAME}", "a-value-value"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${UNSET:-default}", "default"),
        ("${UNSET:-}", ""),
        ("${UNSET:-http://h:80}", "http://h:80"),
        ("${NAME:-default}", "value"),
        ("$${NAME}", "${NAME}"),
        ("$$$$", "$$"),
        ("$NAME costs 5$", "$NAME costs 5$"),
    ],
)
def test_references_are_replaced(text: str, expected: str) -> None:
    assert expected == substitute(text, ENV)


def test_a_value_is_not_read_for_references_again() -> None:
    assert substitute("${DOLLAR}", ENV) == "${NAME}"


def test_a_variable_that_is_not_set_needs_a_default() -> None:
    with pytest.raises(VariableError, match=r"\$\{UNSET\} is not set; .*\$\{UNSET:-default\}"):
        substitute("http://${UNSET}", ENV)


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${NAME", "${NAME-x}", "${NA ME}"])
def test_a_reference_that_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(VariableError, match=r"write \$\{NAME\} or \$\{NAME:-default\}"):
        substitute(text, ENV)
