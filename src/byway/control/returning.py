# SPDX-License-Identifier: Apache-2.0
"""What of the state file can come back, and what has to wait for something else.

Used by wanted. Uses inventory and parts; passive, like them.

Parts may speak of each other in any order and in circles: security groups name each other, a port
is mirrored to a later one. So those that fit are found from the other end: all are taken, and those
of which something is wrong are left out, with all that speak of them. Each part is looked at a few
times, however many there are.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from byway.control.actions import Action
from byway.control.inventory import Inventory
from byway.control.parts import WORDS, Key, Part, mentions
from byway.control.problem import Problem


def fitting(has: Inventory, parts: Mapping[Key, Part]) -> tuple[list[Action], list[Problem]]:
    """The actions by which those of the parts come that fit together and to what is there; and
    what is wrong with the others. None of the parts is there."""
    left = dict(parts)
    users: dict[Key, list[Key]] = {}
    for key, part in left.items():
        for mention in mentions(part):
            users.setdefault(mention.of, []).append(key)
    problems = _without_others(has, left, left, users)
    while True:
        actions = has.new(left)
        # Of two that claim one thing the second is at fault only where the first one comes.
        found = has.misfits(actions) or has.taken_twice(actions)
        if not found:
            return actions, problems
        problems += found
        named = {problem.key.partition(": ")[0] for problem in found}
        gone = [key for key in left if str(key) in named] or list(left)
        for key in gone:
            del left[key]
        problems += _without_others(
            has, left, [user for key in gone for user in users.get(key, ())], users)


def _without_others(has: Inventory, left: dict[Key, Part], suspects: Iterable[Key],
                    users: Mapping[Key, Collection[Key]]) -> list[Problem]:
    """Take out of ``left`` what speaks of parts that are nowhere, and what speaks of those."""
    problems = []
    ahead = deque(suspects)
    while ahead:
        key = ahead.popleft()
        part = left.get(key)
        missing = None if part is None else next(
            (m for m in mentions(part) if m.of not in left and has.parts.get(m.of) is None), None)
        if missing:
            del left[key]
            ahead += users.get(key, ())
            kind, name = missing.of
            problems.append(Problem(f"{key}: {missing.where}",
                                    f'there is no {WORDS[kind]} "{name}"',
                                    "it comes back when that does"))
    return problems


def unit(key: Key, parts: Mapping[Key, Part]) -> set[Key]:
    """A part and those of ``parts`` that it cannot do without."""
    found = {key}
    ahead = [key]
    while ahead:
        for mention in mentions(parts[ahead.pop()]):
            if mention.of in parts and mention.of not in found:
                found.add(mention.of)
                ahead.append(mention.of)
    return found
