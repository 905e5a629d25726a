# SPDX-License-Identifier: Apache-2.0
"""What a change of the switch has to do besides the engine's part: the state file, the gateways.

Used by wanted, around what the engine does. Uses store and gateways.

All or nothing: rules for gateways are made first, then the change is written into the state file,
then the engine carries it out. Whatever refuses, what was done before it is undone.

What the configuration file speaks of is not kept in the state file, whatever the API does about it:
at the next start the file speaks again. An entry of the file takes the place of one of the same
name that came through the API, for good.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence

from byway.control.actions import Action, AddPort, ChangePort, RemovePort
from byway.control.gateways import Gateways
from byway.control.model import Config, TapPort
from byway.control.outcome import outcome
from byway.control.parts import Key, Part, key_of, parts_of
from byway.control.store import Store


class Lasting:
    """Of one switch. ``store`` None: what comes through the API ends with the switch."""

    def __init__(self, switch: str, store: Store | None = None) -> None:
        self._store = store
        self._gateways = Gateways(switch)
        self._masquerading: dict[str, TapPort] = {}
        self._of_file: set[Key] = set()

    @contextlib.contextmanager
    def change(self, actions: Sequence[Action], keep: Collection[Key]) -> Iterator[None]:
        """The body is the engine's part of these actions. ``keep``: what of it came through the
        API; the rest only goes along with that.

        EngineError: one of the others refused, before the engine was asked.
        """
        after = dict(self._masquerading)
        for action in actions:
            match action:
                case RemovePort(name):
                    after.pop(name, None)
                case AddPort(TapPort() as port) | ChangePort(_, TapPort() as port):
                    if port.masquerade:
                        after[port.name] = port
        ours = [action for action in actions
                if all(key in keep and key not in self._of_file for key in outcome([action]))]
        kept = self._store.keeping(ours) if self._store and keep else contextlib.nullcontext()
        self._gateways.follow(after.values())
        try:
            with kept:
                yield
        except BaseException:
            self._gateways.follow(self._masquerading.values())
            raise
        self._masquerading = after

    def load(self) -> tuple[list[Part], list[str]]:
        """What is in the state file, and sentences on what of it cannot be used."""
        return self._store.load() if self._store else ([], [])

    def file_says(self, file: Config) -> list[str]:
        """The configuration file speaks of these from now on; -> sentences on what of the API's it
        takes the place. StoreError: the state file still has that."""
        self._of_file = set(parts_of(file))
        kept = dict.fromkeys(
            key for part in self.load()[0] if (key := key_of(part)) in self._of_file)
        if self._store and kept:
            self._store.forget(kept)
        return [f"{key} stands in the file now: what came through the API is forgotten"
                for key in kept]

    def notes(self) -> list[str]:
        """What is to be said since the last time: settings of the kernel that were changed."""
        notes, self._gateways.notes = self._gateways.notes, []
        return notes

    def close(self) -> None:
        """No rules are left; the state file is given up. Idempotent."""
        try:
            self._gateways.close()
        finally:
            if self._store:
                self._store.close()
