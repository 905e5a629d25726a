# SPDX-License-Identifier: Apache-2.0
"""The robustness part: spoiled conversations and rings, until something breaks.

Used by cli.conform_hostile and the tests. Each case is a correct list of acts, spoiled by random
numbers of seed and case, so that the same seed does the same again. After each, a new session must
pass a frame; where it does not, that is a finding: *gone* (nobody answers), or *stuck* (somebody
answers, and no frame passes). A finding is made smaller by leaving out acts as long as it stays
one (Zeller and Hildebrandt's ddmin), which needs a back end that comes back after it broke: by
itself, or started again by us (``revive``).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byway.conform.backend.acts import Act, Stage, seeds
from byway.conform.backend.bench import Bench
from byway.conform.backend.robust import alive
from byway.conform.backend.spoil import spoil
from byway.conform.outcome import Failed, Gone

FORMAT = "byway conform backend 1"
GONE, STUCK = "gone", "stuck"
TRIES = 400  # the most replays that minimising takes
RETURNS = 3  # how often a back end is given the time to come back


@dataclass(frozen=True)
class Finding:
    """What broke, and by what. ``what``: GONE or STUCK; ``text``: what was seen."""

    what: str
    text: str
    seed: int
    case: int
    acts: tuple[Act, ...]
    minimised: bool = False

    def write(self, path: str) -> None:
        """Write it to a file that ``read`` reads."""
        Path(path).write_text(json.dumps({
            "format": FORMAT, "what": self.what, "text": self.text, "seed": self.seed,
            "case": self.case, "minimised": self.minimised,
            "acts": [act.as_json() for act in self.acts]}, indent=1) + "\n")

    @classmethod
    def read(cls, path: str) -> "Finding":
        """From a file; ValueError where it is none."""
        try:
            found = json.loads(Path(path).read_text())
            if found.get("format") != FORMAT:
                raise ValueError(f"{path} was not written by byway conform backend --hostile")
            acts = tuple(Act.from_json(act) for act in found["acts"])
            return cls(found["what"], found["text"], found["seed"], found["case"], acts,
                       found["minimised"])
        except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error


def play(bench: Bench, acts: Sequence[Act]) -> tuple[str, str]:
    """Do acts, then look whether the back end is well; -> ("", how it went) or (what, text)."""
    stage = Stage()
    try:
        with bench.check():
            ended = stage.do(bench, acts)
    except Gone as error:
        return GONE, str(error)
    finally:
        stage.close()
    seen = ""
    for _ in range(RETURNS):  # it may need a moment to recover, and a crash one to be seen
        try:
            with bench.check():
                alive(bench)
        except Failed as error:
            seen = str(error)
            if "no connection to" in seen:
                return GONE, seen
        else:
            return "", ended
    return STUCK, seen


def make(bench: Bench, case: int) -> list[Act]:
    """The acts of a case."""
    rng = bench.random(f"hostile {case}")
    return spoil(rng.choice(seeds(bench)), rng)


def minimise(acts: Sequence[Act], breaks: Callable[[list[Act]], bool],
             tries: int = TRIES) -> list[Act]:
    """Fewer acts that still break it (ddmin, by complements)."""
    kept, parts = list(acts), 2
    while len(kept) > 1 and tries > 0:
        step = -(-len(kept) // parts)
        for at in range(0, len(kept), step):
            tries -= 1
            fewer = kept[:at] + kept[at + step :]
            if fewer and breaks(fewer):
                kept, parts = fewer, max(parts - 1, 2)
                break
            if tries <= 0:
                break
        else:
            if parts >= len(kept):
                break
            parts = min(2 * parts, len(kept))
    return kept


class Hunt:
    """Cases one after the other. ``revive``: start the back end again; None: it must do itself."""

    def __init__(self, bench: Bench, revive: Callable[[], None] | None = None) -> None:
        self.bench = bench
        self.revive = revive
        self.ends: dict[str, int] = {}  # how cases ended, counted

    def cases(self, count: int) -> Iterator[tuple[int, Finding | None]]:
        """Each case's number and what it found."""
        for case in range(count):
            acts = make(self.bench, case)
            what, text = play(self.bench, acts)
            if not what:
                kind = "hung up" if "hung up" in text else "went on"
                self.ends[kind] = self.ends.get(kind, 0) + 1
                yield case, None
                continue
            self.ends[what] = self.ends.get(what, 0) + 1
            yield case, Finding(what, text, self.bench.seed, case, tuple(acts))

    def back(self) -> bool:
        """Whether the back end is well, or well again."""
        for _ in range(RETURNS):
            if self.revive is not None:
                self.revive()
            try:
                with self.bench.check():
                    alive(self.bench)
            except Failed:
                continue
            return True
        return False

    def smaller(self, finding: Finding) -> Finding:
        """The finding with as few acts as can be; itself where the back end stays away."""
        if not self.back():
            return finding
        well = True

        def breaks(acts: list[Act]) -> bool:
            nonlocal well
            if not well:
                return False
            broken = bool(play(self.bench, acts)[0])
            if broken:
                well = self.back()
            return broken

        acts = minimise(finding.acts, breaks)
        return Finding(finding.what, finding.text, finding.seed, finding.case, tuple(acts), well)


def summary(ends: dict[str, int]) -> dict[str, Any]:
    """How cases ended, for JSON."""
    return {"cases": sum(ends.values()), **ends}
