"""From a file to a RoutingConfig, or to everything that is wrong with it.

The steps: YAML with places, the models, the checks between entries, the certificates, apps and
middleware that it names, and only when nothing is wrong the values of the core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from gateway.config.apps import check_apps
from gateway.config.certificates import check_certificates, locate_certificates, unverified
from gateway.config.compiling import compile_routes
from gateway.config.crosscheck import cross_check, odd_things
from gateway.config.document import place_in, read_document
from gateway.config.errors import ConfigError
from gateway.config.shape import check_shape
from gateway.core.config import Problem, RoutingConfig
from gateway.pem import PemError


def load_routes(path: Path, env: Mapping[str, str]) -> RoutingConfig:
    """Load a routes.yaml; `env` fills in its variables. Reads the file, so it may block.

    Raises ConfigError with all problems, also where the file is missing or is not UTF-8.
    """
    file = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError((Problem(file, 0, 0, "", f"cannot be read: {reason}"),)) from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        readable = raw[: error.start].decode()
        place = place_in(readable, len(readable))
        problem = Problem(file, place.line, place.column, "", "is not UTF-8")
        raise ConfigError((problem,)) from error
    config = parse_routes(text, file=file, env=env)
    return replace(config, sha256=hashlib.sha256(raw).hexdigest())


def parse_routes(text: str, *, file: str = "routes.yaml", env: Mapping[str, str]) -> RoutingConfig:
    """Make a RoutingConfig of the text of a routes.yaml; `file` is its name in problems.

    Reads the files that `tls` names; relative ones count from the folder of `file`. Imports the
    apps and middleware that it names, which may also lie in that folder.
    Raises ConfigError with all problems.
    """
    document = read_document(text, file=file, env=env)
    entries, problems = check_shape(document)
    folder = Path(file).parent
    problems += [*document.problems, *cross_check(document)]
    problems += [*check_certificates(document, folder), *check_apps(document, folder)]
    if problems or entries is None:
        raise ConfigError(tuple(problems))
    warnings = tuple(sorted([*odd_things(document, entries), *unverified(document)]))
    config = compile_routes(entries)
    try:
        located = {
            name: locate_certificates(service, folder) for name, service in config.services.items()
        }
    except PemError as error:  # it was there a moment ago
        raise ConfigError((Problem(file, 0, 0, "", str(error)),)) from error
    return replace(config, services=MappingProxyType(located), warnings=warnings)
