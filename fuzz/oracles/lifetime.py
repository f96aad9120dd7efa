"""Nothing is touched after it was freed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile

from fuzz.oracles.base import Snapshot
from kstate.machine import (
    LOAD,
    Note,
    Report,
    touch,
)
from kstate.machine.points import point_by_number
from kstate.structs import Kernel, VmAreaStruct

# What may be tried on a page or anon_vma that may be gone: it fails, or is taken back.
SPECULATIVE = frozenset(("get_page_unless_zero", "atomic_inc_not_zero"))


class FreedThingsAreLeftAlone:
    """A freed page is not stored to, and a freed vma not even read.

    Looks through the log from the first free on.
    Not checked: reads of freed pages, which lockless lookups do on purpose; anon_vmas, whose memory
    is type-stable; address spaces, which live as long as the machine.
    """

    id = "use-after-free"

    def attach(self, k: Kernel) -> None:
        self._freed: list[Note] = []
        for kind in ("page-freed", "page-allocated", "vma-freed"):
            k.machine.subscribe(kind, self._tell)

    def _tell(self, note: Note) -> None:
        touch(note.about[0])
        self._freed.append(note)

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        # Until the first free every page that is allocated is one that nobody freed.
        notes = list(dropwhile(lambda note: note.kind == "page-allocated", self._freed))
        if not notes:
            return
        machine = state.k.machine
        log = machine.log
        freed: set[int] = set()
        following = 0
        at = notes[0].log_at
        while at < len(log):
            number = log[at]
            if number < 0:
                at += 1
                continue
            while following < len(notes) and notes[following].log_at <= at:
                note = notes[following]
                following += 1
                if note.kind == "page-allocated":
                    freed.discard(note.about[0].id)
                else:
                    freed.add(note.about[0].id)
            point = point_by_number(number)
            primitive = point.primitive
            if log[at + 1] in freed:
                thing = machine.objects[log[at + 1]]
                if isinstance(thing, VmAreaStruct) or not (
                    primitive.access == LOAD or primitive.name in SPECULATIVE
                ):
                    yield Report(
                        self.id,
                        f"{point.name} on {thing.label()} after it was freed",
                        point.name.split(" ", 1)[0],
                        (thing.label(),),
                    )
                    return
            at += 2 + primitive.results
