# SPDX-License-Identifier: Apache-2.0
"""`byway nf check`: what is said of a network function, and how it is shown.

Used by cli.nf. Uses testing.function_check; what names a function is read by nf_use.py.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from byway.cli.nf_use import UseError, captured, uses
from byway.cli.output import print_json

if TYPE_CHECKING:
    from byway.testing.function_check import Report


def run_check(written: str, captures: Sequence[str], count: int, seed: int, as_json: bool) -> int:
    """Check one function, or all of a file; -> 0 where nothing is wrong, 1, or 2 for a wrong call.
    """
    from byway.testing.function_check import check
    from byway.testing.generated import generated

    try:
        chosen = uses(written)
        frames = [*captured(captures), *generated(count, seed)]
    except UseError as error:
        for problem in error.problems:
            print(f"byway nf check: {problem}", file=sys.stderr)
        return error.status
    reports = {one.shown: check(one.use, one.parameters, frames, seed) for one in chosen}
    if as_json:
        print_json([_as_json(name, report) for name, report in reports.items()])
    else:
        for name, report in reports.items():
            _show(name, report)
    if any(not problem.file for report in reports.values() for problem in report.problems):
        return 2  # what is wrong is no part of the source: a parameter
    return int(not all(report.good for report in reports.values()))


def _as_json(name: str, report: "Report") -> dict[str, object]:
    return {
        "function": name, "good": report.good, "frames": report.frames,
        "verdicts": dict(report.verdicts), "reasons": dict(report.reasons),
        "compile_seconds": round(report.seconds, 3),
        "problems": [{"file": p.file, "line": p.line, "message": p.message, "fix": p.fix}
                     for p in report.problems],
        "findings": [{"file": f.file, "line": f.line, "message": f.message,
                      "frame": f.frame.hex()} for f in report.findings]}


def _show(name: str, report: "Report") -> None:
    if report.problems:
        for problem in report.problems:
            print(f"byway nf check: {problem if problem.file else problem.message}",
                  file=sys.stderr)
        print(f"{name}: refused")
        return
    said = [f"{number} {verdict}" for verdict, number in report.verdicts.most_common()]
    print(f"{name}: {report.frames} frames: {', '.join(said)}; ready in {report.seconds:.1f} s")
    for reason, number in report.reasons.most_common():
        print(f"  dropped, {reason}: {number}")
    for finding in report.findings:
        print(f"byway nf check: {finding}", file=sys.stderr)
    print("  plain Python, interpreted and compiled agree; nothing went wrong" if report.good
          else f"  {len(report.findings)} things are wrong" if len(report.findings) > 1
          else "  1 thing is wrong")
