"""`report`: what a learner has done, as text, as a page, or for programs."""

import html
import json
from dataclasses import asdict
from typing import Any

from . import capstone
from .catalogue import EXERCISES
from .folder import Folder
from .format import CHAPTERS
from .verdict import PASSED

FORMATS = ("text", "html", "json")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #ddd }
.passed { color: #18794e } .wrong, .forbidden { color: #cd2b31 }
.crashed, .timed { color: #8e4ec6 } .not { color: #777 }
"""


def report(folder: Folder, form: str) -> str:
    """The report as text in one of FORMATS."""
    return {"text": _text, "html": _html, "json": _json}[form](rows(folder))


def rows(folder: Folder) -> list[dict[str, Any]]:
    """One entry for each exercise, and one for the capstone."""
    entries = [
        {
            "number": exercise.number,
            "name": exercise.name,
            "title": exercise.title,
            "chapter": exercise.chapter,
            **asdict(folder.of(exercise.name)),
        }
        for exercise in EXERCISES.values()
    ]
    last = {"number": len(entries) + 1, "name": capstone.NAME, "title": capstone.TITLE}
    return [*entries, {**last, "chapter": CHAPTERS[-1], **asdict(folder.of(capstone.NAME))}]


def _counts(entries: list[dict[str, Any]]) -> str:
    passed = sum(entry["status"] == PASSED for entry in entries)
    return f"{passed} of {len(entries)} passed"


def _text(entries: list[dict[str, Any]]) -> str:
    lines = ["     exercise             status       attempts hints solution passed at"]
    for entry in entries:
        seen = "seen" if entry["solution_seen"] else ""
        lines.append(
            f"{entry['number']:3}  {entry['name']:20} {entry['status']:12} {entry['attempts']:8}"
            f" {entry['hint']:5} {seen:8} {entry['passed_at'][:16]}".rstrip()
        )
    return "\n".join([*lines, "", _counts(entries)])


def _json(entries: list[dict[str, Any]]) -> str:
    passed = sum(entry["status"] == PASSED for entry in entries)
    return json.dumps({"passed": passed, "total": len(entries), "exercises": entries}, indent=1)


def _html(entries: list[dict[str, Any]]) -> str:
    body = []
    for chapter in CHAPTERS:
        body.append(f"<h2>{html.escape(chapter)}</h2>\n<table>")
        head = ("", "exercise", "status", "attempts", "hints", "mistakes met")
        body.append("<tr>" + "".join(f"<th>{text}</th>" for text in head) + "</tr>")
        for entry in entries:
            if entry["chapter"] == chapter:
                kind = entry["status"].split()[0]
                cells = [
                    f"<td>{entry['number']}</td>",
                    f"<td>{html.escape(entry['title'])}<br><code>{entry['name']}</code></td>",
                    f'<td class="{kind}">{entry["status"]}</td>',
                    f"<td>{entry['attempts']}</td>",
                    f"<td>{entry['hint']}</td>",
                    f"<td>{html.escape(', '.join(entry['mistakes']))}</td>",
                ]
                body.append("<tr>" + "".join(cells) + "</tr>")
        body.append("</table>")
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>minidl exercises</title>\n<style>{STYLE}</style>\n"
        f"<h1>minidl exercises: {_counts(entries)}</h1>\n" + "\n".join(body) + "\n</html>"
    )
