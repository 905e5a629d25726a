# SPDX-License-Identifier: Apache-2.0
"""Outcomes as other programs read them: JSON, JUnit XML; and their count.

Used by cli.conform and the tests.
"""

import xml.etree.ElementTree as xml
from collections.abc import Sequence
from typing import Any

from byway.conform.outcome import Level, Outcome, Verdict

# What XML 1.0 cannot hold.
_UNPRINTABLE = {k: "?" for k in range(32) if k not in (9, 10, 13)}


def count(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many of each verdict, failures by level."""
    made = {verdict.value: sum(o.verdict is verdict for o in outcomes) for verdict in Verdict}
    for level in Level:
        made[f"{level.value} failed"] = sum(
            o.verdict is Verdict.FAIL and o.level is level for o in outcomes)
    return made


def sentence(outcomes: Sequence[Outcome]) -> str:
    """The result in one line."""
    n = count(outcomes)
    verdict = "FAILED" if n["must failed"] else "PASSED"
    return (f"{verdict}: {n['pass']} of {len(outcomes)} checks passed, {n['must failed']} must and "
            f"{n['should failed']} should failed, {n['not-applicable']} do not apply, "
            f"{n['unable']} could not be made")


def as_json(direction: str, path: str, seed: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The whole run as one document."""
    return {"direction": direction, "socket": path, "seed": seed, "counts": count(outcomes),
            "checks": [outcome.as_row() for outcome in outcomes]}


def as_junit(direction: str, path: str, outcomes: Sequence[Outcome]) -> str:
    """The whole run as a JUnit test suite; what does not apply or cannot be made is skipped."""
    n = count(outcomes)
    suite = xml.Element("testsuite", {
        "name": f"byway conform {direction} {path}", "tests": str(len(outcomes)),
        "failures": str(n["fail"]), "skipped": str(n["not-applicable"] + n["unable"]),
        "time": f"{sum(o.seconds for o in outcomes):.3f}"})
    for outcome in outcomes:
        group, _, name = outcome.name.partition(".")
        case = xml.SubElement(suite, "testcase", {
            "classname": f"{direction}.{group}", "name": name, "time": f"{outcome.seconds:.3f}"})
        seen = outcome.seen.translate(_UNPRINTABLE)
        if outcome.verdict is Verdict.FAIL:
            made = xml.SubElement(case, "failure", {"type": outcome.level.value, "message": seen})
            made.text = f"{outcome.section}: {outcome.done}"
        elif outcome.verdict is not Verdict.PASS:
            xml.SubElement(case, "skipped", {"message": f"{outcome.verdict.value}: {seen}"})
        else:
            xml.SubElement(case, "system-out").text = seen
    xml.indent(suite)
    return xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
