"""Nothing is touched after it was freed."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.machine import LOAD, Note, Report
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
            k.machine.subscribe(kind, self._freed.append)

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        freed: dict[int, Note] = {}
        following = 0
        notes = self._freed
        if not notes:
            return
        machine = state.k.machine
        for event in machine.events(notes[0].log_at):
            while following < len(notes) and notes[following].log_at <= event.log_at:
                note = notes[following]
                following += 1
                if note.kind == "page-allocated":
                    freed.pop(note.about[0].id, None)
                else:
                    freed[note.about[0].id] = note
            free = freed.get(event.operand)
            if free is None:
                continue
            primitive = event.point.primitive
            thing = machine.objects[event.operand]
            if not isinstance(thing, VmAreaStruct) and (
                primitive.access == LOAD or primitive.name in SPECULATIVE
            ):
                continue
            yield Report(
                self.id,
                f"{event.point.name} on {thing.label()} after it was freed",
                event.point.name.split(" ", 1)[0],
                (thing.label(),),
            )
            return
