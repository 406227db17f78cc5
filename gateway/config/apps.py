"""The apps and middleware that routes.yaml names: that they can be imported, and are what is meant.

The one rule: what would fail at the first request fails when the file is loaded, at its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.config.crosscheck import items_at, part_at, value_at
from gateway.config.document import Document, DocumentPath
from gateway.config.kinds import ImportName
from gateway.config.models import MiddlewareEntry
from gateway.core.config import Problem
from gateway.imports import ImportNameError, load_app, load_middleware, look_beside

_IMPORT_NAME: TypeAdapter[str] = TypeAdapter(ImportName)


def check_apps(document: Document, folder: Path) -> Iterator[Problem]:
    """List what is wrong with the apps and middleware, each at the place that names it.

    Modules are also looked for in `folder`, that of the file.
    """
    for route in items_at(document, ("routes",)):
        name = _name_at(document, (*route, "app"))
        if name is not None:
            look_beside(folder)
            try:
                load_app(name)
            except ImportNameError as error:
                yield document.problem((*route, "app"), str(error))
        for path in items_at(document, (*route, "middleware")):
            yield from _check_middleware(document, path, folder)


def _check_middleware(document: Document, path: DocumentPath, folder: Path) -> Iterator[Problem]:
    entry = part_at(document, path, MiddlewareEntry)
    if entry is None:
        return
    look_beside(folder)
    try:
        load_middleware(entry.use, entry.options)
    except ImportNameError as error:
        is_bare = isinstance(value_at(document, path), str)
        yield document.problem(path if is_bare else (*path, "use"), str(error))


def _name_at(document: Document, path: DocumentPath) -> str | None:
    """Read the name at a path, None where there is none or it is not right."""
    value = value_at(document, path)
    if value is None or document.is_blocked(path):
        return None
    try:
        return _IMPORT_NAME.validate_python(value)
    except ValidationError:
        return None
