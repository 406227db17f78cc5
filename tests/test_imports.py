"""Names to import, and everything that may be wrong with what they stand for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.imports import ImportNameError, load_app, load_middleware, look_beside
from tests.fakes.apps import Adds, Guard, puppet, starlette


def test_an_app_and_a_middleware_are_what_their_names_say() -> None:
    assert load_app("tests.fakes.apps:puppet") is puppet
    assert load_app("tests.fakes.apps:starlette.router") is starlette.router
    assert load_middleware("tests.fakes.apps:Adds", {"name": "x-a"}) is Adds
    assert load_middleware("tests.fakes.apps:Guard", {"realm": "shop"}) is Guard


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "no_such_module:app",
            "install it, or put it beside the file with the routes",
        ),
        ("tests.fakes.apps:nobody", "tests.fakes.apps has no 'nobody'"),
        ("tests.fakes.apps:puppet.arm", "tests.fakes.apps has no 'puppet.arm'"),
        ("tests.fakes.apps:Puppet", "is a class; name an app that is made already"),
        ("tests.fakes.apps:__doc__", "is of type str, which nobody can call; name an ASGI app"),
    ],
)
def test_what_is_no_app_is_told_with_what_to_do(name: str, reason: str) -> None:
    with pytest.raises(ImportNameError, match=r".") as refused:
        load_app(name)

    assert str(refused.value).endswith(reason)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("tests.fakes.apps:__doc__", {}, "is of type str, which nobody can call; name a class"),
        ("tests.fakes.apps:Guard", {}, "cannot be made of an app: missing a required argument"),
        ("tests.fakes.apps:Adds", {"nam": "x"}, "cannot be made of an app and nam: got an unexp"),
    ],
)
def test_middleware_that_cannot_be_made_so_is_told(
    name: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(ImportNameError) as refused:
        load_middleware(name, options)

    assert reason in str(refused.value)


def test_what_tells_no_signature_is_believed() -> None:
    assert load_middleware("builtins:iter", {}) is iter


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write modules into a folder in which modules are found."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    look_beside(tmp_path)
    look_beside(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module\n", "there is no module 'no_such_module'; install it, "),
        ("def app(:\n", "broken_beside cannot be imported: SyntaxError: "),
        ("1 / 0\n", "broken_beside cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')\n", "broken_beside cannot be imported: SystemExit: no"),
    ],
)
def test_a_module_that_fails_is_told_with_its_reason(
    beside: Callable[[str, str], None], text: str, reason: str
) -> None:
    beside("broken_beside", text)

    with pytest.raises(ImportNameError) as refused:
        load_app("broken_beside:app")

    assert str(refused.value).startswith(reason)


def test_a_folder_is_looked_in_once_and_after_all_others(
    beside: Callable[[str, str], None], tmp_path: Path
) -> None:
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1
