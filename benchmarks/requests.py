"""What clients send: the bytes of each request, no two of which are the same.

Paths, cookies and trace ids vary, so that nobody profits from having seen the same bytes before.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from benchmarks.works import Work, asked_of

HOST = "shop.example.com"
_VARIANTS = 512
_VARIANTS_BYTES = 1_000_000  # all bodies together
_SEED = 1

_BROWSER = (
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7",
    "Cache-Control: no-cache",
    "Referer: https://www.example.com/catalogue/shoes?size=42&colour=blue&sort=price",
    "Sec-Fetch-Mode: navigate",
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)
_PROGRAM = ("Accept: application/json", "User-Agent: orders/3.2 (internal)")
_AUTHORIZATION_BYTES = 160


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its target, its fields as lines, and its body."""

    method: str
    target: str
    fields: tuple[str, ...]
    body: str = ""

    def __bytes__(self) -> bytes:
        lines = (f"{self.method} {self.target} HTTP/1.1", f"Host: {HOST}", *self.fields)
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode("ascii")


def requests_of(work: Work) -> list[Request]:
    """Make the requests of a work; the same ones each time."""
    chance = random.Random(_SEED)
    count = min(_VARIANTS, _VARIANTS_BYTES // max(work.body_bytes, 1))
    names = asked_of(work)
    every = max(len(names) // count, 1)  # of many routes, some from all over
    chosen = [names[number * every % len(names)] for number in range(count)]
    chance.shuffle(chosen)
    return [_request(work, name, chance) for name in chosen]


def _request(work: Work, name: str, chance: random.Random) -> Request:
    folder = f"{work.answer}/" if work.answer else ""
    target = f"/api/{name}/{folder}{chance.randrange(100_000)}?page={chance.randrange(100)}"
    if work.is_browser:
        return Request("GET", target, _browser_fields(chance))
    fields: tuple[str, ...] = (
        *_PROGRAM,
        f"traceparent: 00-{_hex(32, chance)}-{_hex(16, chance)}-01",
    )
    if not work.body_bytes:
        return Request("GET", target, fields)
    body = _body(work.body_bytes, chance)
    fields = (
        *fields,
        f"Authorization: Bearer {_hex(_AUTHORIZATION_BYTES, chance)}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return Request("POST", target, fields, body)


def _browser_fields(chance: random.Random) -> tuple[str, ...]:
    cookie = f"Cookie: session={_hex(540, chance)}; theme=dark; consent=yes; ab={_hex(120, chance)}"
    return (*_BROWSER, cookie)


def _hex(digits: int, chance: random.Random) -> str:
    return f"{chance.getrandbits(4 * digits):0{digits}x}"


def _body(size_bytes: int, chance: random.Random) -> str:
    """Make JSON of exactly this size."""
    empty = json.dumps({"id": 10_000_000, "note": ""})
    note = _hex(size_bytes - len(empty), chance)
    return json.dumps({"id": chance.randrange(10_000_000, 99_999_999), "note": note})
