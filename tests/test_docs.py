"""The pages against the code: each event that is logged stands in the table of operations.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LOGGED = re.compile(
    r"log(?:ger)?(?:\(\))?\.(?:debug|info|warning|error|critical|exception)\(\s*\"([a-z_]+)\""
)


def _events_in_code() -> set[str]:
    sources = (ROOT / "gateway").rglob("*.py")
    return {event for path in sources for event in _LOGGED.findall(path.read_text())}


def test_each_event_stands_in_a_page() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    events = _events_in_code()
    assert len(events) > 20
    assert sorted(event for event in events if f"`{event}`" not in pages) == []


def test_each_link_of_the_questions_leads_somewhere() -> None:
    questions = (ROOT / "docs" / "questions.md").read_text()
    links = re.findall(r"\]\(([a-z/.-]+\.md)", questions)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
