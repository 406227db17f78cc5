"""How hard hypothesis tries: "ci" is quick and the same each time, "nightly" looks further.

Choose with `pytest --hypothesis-profile=nightly`. No deadline for one example: a busy machine is
not a bug, and pytest bounds each test anyway.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ci", max_examples=200, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=5000, deadline=None)
settings.load_profile("ci")
