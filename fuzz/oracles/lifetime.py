"""Nothing is touched after it was freed."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.machine import LOAD, Note, Report, touch
from kstate.machine.points import LOG_LENGTH, point_by_number
from kstate.structs import AnonVma, Kernel, MmStruct, Page, VmAreaStruct

# What may be tried on a page or anon_vma that may be gone: it fails, or is taken back.
SPECULATIVE = frozenset(
    ("get_page_unless_zero", "atomic_inc_not_zero", "down_read_trylock", "up_read")
)


class FreedThingsAreLeftAlone:
    """A freed page or anon_vma is not stored to, nor the page table of an mm that is gone, and no
    freed vma is even read.

    Looks through the log from the first free on.
    Not checked: reads of freed pages, which lockless lookups do on purpose; files, which live as
    long as the machine; mm_users and mmap_sem of an mm, which ksmd and new threads look at.
    """

    id = "use-after-free"

    def attach(self, k: Kernel) -> None:
        self._freed: list[Note] = []
        for kind in ("page-freed", "page-allocated", "vma-freed", "anon-vma-freed", "mm-freed"):
            k.machine.subscribe(kind, self._tell)

    def _tell(self, note: Note) -> None:
        touch(note.about[0])
        self._freed.append(note)

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        machine = state.k.machine
        log = machine.log
        freed: set[int] = set()
        ends = [note.log_at for note in self._freed[1:]] + [len(log)]
        for note, end in zip(self._freed, ends, strict=False):
            if note.kind == "page-allocated":
                freed.discard(note.about[0].id)
            else:
                freed.update(_gone_with(note.about[0]))
            at = note.log_at
            while freed and at < end:
                number = log[at]
                if number < 0:
                    at += 1
                    continue
                if log[at + 1] in freed:
                    point, thing = point_by_number(number), machine.objects[log[at + 1]]
                    if isinstance(thing, VmAreaStruct) or not (
                        point.primitive.access == LOAD or point.primitive.name in SPECULATIVE
                    ):
                        yield Report(
                            self.id,
                            f"{point.name} on {thing.label()} after it was freed",
                            point.name.split(" ", 1)[0],
                            (thing.label(),),
                        )
                        return
                at += LOG_LENGTH[number]


def _gone_with(thing: Page | VmAreaStruct | AnonVma | MmStruct) -> Iterator[int]:
    """Objects that are freed with one, itself included."""
    if isinstance(thing, MmStruct):
        yield thing.page_table_lock.id
        yield from (pte.id for pte in thing.ptes.values())
    else:
        yield thing.id
    if isinstance(thing, AnonVma) and thing.root is thing:
        yield thing.rwsem.id
