"""Names such as `package.module:attribute`, and the apps and middleware that they stand for.

The one rule: whatever goes wrong while somebody else's module is imported becomes one error that
says what to do. Importing happens while the gateway loads, never for a request.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class ImportNameError(Exception):
    """A name that does not stand for what is wanted; says why and what to do."""


def look_beside(folder: Path) -> None:
    """Let modules be found in this folder too, after all other places."""
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.append(place)


def load_app(name: str) -> Callable[..., Any]:
    """Import the ASGI app of this name; raises ImportNameError."""
    app: object = _load(name)
    if inspect.isclass(app):
        raise ImportNameError(f"{name} is a class; name an app that is made already")
    if not callable(app):
        raise ImportNameError(f"{name} is {_kind(app)}, which nobody can call; name an ASGI app")
    return app


def load_middleware(name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """Import the middleware of this name; raises ImportNameError, also if it takes other options.

    It is a class, or whatever else makes an app when it is called with the app inside.
    """
    make: object = _load(name)
    if not callable(make):
        raise ImportNameError(f"{name} is {_kind(make)}, which nobody can call; name a class")
    try:
        inspect.signature(make).bind(None, **options)
    except TypeError as error:
        taken = "an app" if not options else f"an app and {', '.join(sorted(options))}"
        raise ImportNameError(f"{name} cannot be made of {taken}: {error}") from error
    except ValueError:  # it is of C and tells no signature; it will show when it is made
        pass
    return make


def _load(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        advice = "install it, or put it beside the file with the routes"
        raise ImportNameError(f"there is no module {missing!r}; {advice}") from error
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ImportNameError(f"{module_name} cannot be imported: {reason}") from error
    for step in attribute.split("."):
        try:
            found = getattr(found, step)
        except AttributeError as error:
            raise ImportNameError(f"{module_name} has no {attribute!r}") from error
    return found


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
