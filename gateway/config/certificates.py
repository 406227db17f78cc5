"""The files that `tls` in routes.yaml names: that they are there, and hold what they should.

The one rule: what would fail at the first request to an instance fails when the file is loaded, at
its line. Relative names count from the folder of routes.yaml.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from gateway.config.compiling import merged_tls
from gateway.config.crosscheck import items_at, part_at
from gateway.config.document import Document, DocumentPath
from gateway.config.policies import TlsEntry
from gateway.core.config import Problem, ServiceConfig
from gateway.core.policy import TlsPolicy
from gateway.pem import PemError, load_pair, read_pem, trust_authorities


def check_certificates(document: Document, folder: Path) -> Iterator[Problem]:
    """List what is wrong with the files that are named, each at the place that names it."""
    at_defaults: DocumentPath = ("defaults", "tls")
    defaults = part_at(document, at_defaults, TlsEntry) or TlsEntry()
    own = {at_defaults: defaults}
    for service in items_at(document, ("services",)):
        path = (*service, "tls")
        own[path] = part_at(document, path, TlsEntry) or TlsEntry()
    for path, entry in own.items():
        policy = _with_paths(merged_tls(defaults, entry), folder)
        for keys, message in _problems_of(policy):
            said = [key for key in keys if key in entry.model_fields_set]
            if said:
                yield document.problem((*path, said[0]), message)


def locate_certificates(service: ServiceConfig, folder: Path) -> ServiceConfig:
    """Give a service whose files were found to be right their full paths, and their mark.

    Raises PemError when one of them has gone since.
    """
    policy = _with_paths(service.tls, folder)
    named = [name for name in (policy.ca_file, policy.client_cert, policy.client_key) if name]
    if not named:
        return service
    mark = sha256(b"".join(sha256(read_pem(Path(file))).digest() for file in named)).hexdigest()
    return replace(service, tls=policy, tls_mark=mark)


def unverified(document: Document) -> Iterator[Problem]:
    """List the places where certificates are not checked."""
    services = [(*service, "tls") for service in items_at(document, ("services",))]
    for path in (("defaults", "tls"), *services):
        entry = part_at(document, path, TlsEntry)
        if entry is not None and entry.skip_verify:
            message = (
                "certificates are not checked: whoever stands in between reads and changes "
                "everything"
            )
            yield document.problem((*path, "skip_verify"), message, at_key=True)


def _with_paths(policy: TlsPolicy, folder: Path) -> TlsPolicy:
    def located(name: str | None) -> str | None:
        return None if name is None else str(folder / name)

    return replace(
        policy,
        ca_file=located(policy.ca_file),
        client_cert=located(policy.client_cert),
        client_key=located(policy.client_key),
    )


def _problems_of(policy: TlsPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
    """List what is wrong with the files: the keys where it can be said, best first, and the words.

    A pair may have been put together of two places, and then the nearer one is to blame.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if policy.ca_file is not None:
        try:
            trust_authorities(context, Path(policy.ca_file))
        except PemError as error:
            yield ("ca_file",), str(error)
    cert, key = policy.client_cert, policy.client_key
    if cert is not None and key is not None:
        try:
            load_pair(context, Path(cert), Path(key))
        except PemError as error:
            both = ("client_cert", "client_key")
            yield (both if error.file == Path(cert) else both[::-1]), str(error)
    elif cert is not None:
        yield ("client_cert",), "needs client_key beside it"
    elif key is not None:
        yield ("client_key",), "needs client_cert beside it"
