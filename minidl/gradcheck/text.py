"""A report as text of at most 80 columns, and as HTML for notebooks."""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING

from .compare import Verdict

if TYPE_CHECKING:
    from .report import ArrayReport, GradReport

__all__ = ["as_html", "as_text"]

WIDTH = 80


def as_text(report: GradReport) -> str:
    """The report in lines of at most 80 columns."""
    lines = _filled(f"gradcheck {report.title}: {report.status.upper()}", "")
    lines += _filled(_how(report), "  ")
    for array in report.arrays:
        if array.checked or array.analytic is None or not report.directions:
            lines += ["", *_array_lines(array)]
    if report.directions:
        lines += ["", *_direction_lines(report)]
    if report.obstacle is not None:
        lines += ["", *_finding("cannot be checked", report.obstacle.text, report.obstacle.hint)]
    for problem in report.problems:
        lines += ["", *_finding(f"problem: {problem.kind}", problem.text, problem.hint)]
    for diagnosis in report.diagnoses:
        lines += ["", *_finding(f"diagnosis: {diagnosis.name}", diagnosis.evidence, diagnosis.hint)]
    if report.status == "inconclusive" and report.obstacle is None:
        text = (
            f"{report.kinks} of {report.checked} are at kinks, where there is no one derivative; "
            f"check at other inputs"
        )
        lines += ["", *_filled(text, "  ")]
    if report.reproduce:
        lines += ["", "reproduce", f"  {report.reproduce}"]  # to be copied: never broken
    return "\n".join(lines)


def as_html(report: GradReport) -> str:
    """The report for a notebook: a table of the gradients, and what was found."""
    colour = {"passed": "#2e7d32", "failed": "#c62828"}.get(report.status, "#b26a00")
    head = "".join(
        f"<th>{title}</th>"
        for title in ("gradient", "shape", "checked", "wrong", "worst at", "analytic", "numeric",
                      "ratio", "cosine", "kinks")
    )  # fmt: skip
    rows = []
    for a in report.arrays:
        found = a.worst is not None
        cells = [a.name, a.shape, a.checked, a.wrong, a.worst if found else ""]
        cells += (
            [_short(a.worst_analytic), _short(a.worst_numeric), _short(a.ratio)]
            if found
            else [""] * 3
        )
        cells += [_short(a.cosine), a.kinks]
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in cells) + "</tr>")
    findings = [(p.kind, p.text, p.hint) for p in report.problems]
    findings += [(d.name, d.evidence, d.hint) for d in report.diagnoses]
    if report.obstacle is not None:
        findings.insert(0, (report.obstacle.kind, report.obstacle.text, report.obstacle.hint))
    listed = "".join(
        f"<li><b>{html.escape(name)}</b>: {html.escape(text)}<br><i>{html.escape(hint)}</i></li>"
        for name, text, hint in findings
    )
    return (
        f"<div><b>gradcheck {html.escape(report.title)}: "
        f'<span style="color:{colour}">{report.status.upper()}</span></b>'
        f" <small>{html.escape(_how(report))}</small>"
        f"<table><tr>{head}</tr>{''.join(rows)}</table>"
        f"{f'<ul>{listed}</ul>' if listed else ''}"
        f"{f'<code>{html.escape(report.reproduce)}</code>' if report.reproduce else ''}</div>"
    )


def _how(report: GradReport) -> str:
    seeds = ", ".join(map(str, report.seeds))
    extent = {
        "full": "every element",
        "sampled": "random directions and a sample of elements",
        "directional": "random directions",
        "one element": "one element",
    }[report.mode]
    held = f"; not differentiated by: {', '.join(report.held)}" if report.held else ""
    return f"{report.method}, {extent}, seed{'s' * (len(report.seeds) > 1)} {seeds}{held}"


def _array_lines(array: ArrayReport) -> list[str]:
    head = f"  {array.name} {array.shape}: "
    if array.analytic is None:
        return [*_filled(head + "no gradient to compare", "  ")]
    kinks = f"; {array.kinks} at kinks, left out" if array.kinks else ""
    if not array.wrong:
        return _filled(f"{head}{array.checked - array.kinks} of {array.checked} right{kinks}", "  ")
    lines = _filled(f"{head}{array.wrong} of {array.checked} wrong{kinks}", "  ")
    lines.append(
        f"    analytic {_short(array.worst_analytic)}   numeric {_short(array.worst_numeric)}   "
        f"ratio {_short(array.ratio)}"
    )
    box = ", ".join(f"{start}:{stop}" for start, stop in array.box or ())
    lines += _filled(f"at {_index(array.worst)}, the worst; all wrong ones in [{box}]", "    ")
    lines += _filled(
        f"cosine {_short(array.cosine)}   scale {_short(array.scale)}   "
        f"noise floor {array.noise:.0e}",
        "    ",
    )
    return lines


def _direction_lines(report: GradReport) -> list[str]:
    wrong = [d for d in report.directions if d.verdict == Verdict.WRONG]
    kinks = sum(d.verdict == Verdict.KINK for d in report.directions)
    total = len(report.directions)
    tail = f"; {kinks} at kinks, left out" if kinks else ""
    if not wrong:
        return [f"  directions: {total - kinks} of {total} right{tail}"]
    first = wrong[0]
    return [
        f"  directions: {len(wrong)} of {total} wrong{tail}",
        f"    along {first.along}",
        f"    analytic {_short(first.analytic)}   numeric {_short(first.numeric)}",
    ]


def _finding(title: str, text: str, hint: str) -> list[str]:
    return [*_filled(title, ""), *_filled(text, "  "), *_filled(f"hint: {hint}", "  ")]


def _filled(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent + "  " * bool(indent)
    )


def _index(index: tuple[int, ...] | None) -> str:
    return f"[{', '.join(map(str, index or ()))}]"


def _short(value: float) -> str:
    return f"{value:.6g}"
