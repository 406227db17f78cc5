"""routes.yaml: read with line and column, checked as a whole, compiled to values of the core.

    variables     ${VAR} in texts
    document      YAML -> plain values, and where each of them stands
    kinds         the kinds of values: duration, path, URL …
    models        which keys there are (pydantic; it stays inside this package)
    shape         a document against the models -> problems that a person can read
    crosscheck    what only shows when several entries are seen together
    certificates  the files that `tls` names
    compiling     models -> routes and services of the core
    loading       all of it, in order: load_routes

The one rule: a file never half-loads, and all that is wrong with it is told at once.
"""

from gateway.config.errors import ConfigError
from gateway.config.loading import load_routes, parse_routes

__all__ = ["ConfigError", "load_routes", "parse_routes"]
