"""An API gateway for services in Consul: a path prefix names one, a healthy instance answers."""

__version__ = "0.1.0"
