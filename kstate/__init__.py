"""kstate: Linux page migration and mlock state, as a deterministic model.

In reading order:
    machine/       deterministic threads; knows no Linux
    patches.py     what can be switched on and off, and how a kernel is spelled
    flags.py       PG_ VM_ TTU_ SWAP_ and the counters
    structs.py     struct page, vma, mm, pte ...: every access to a shared word is a step
    pageflags.py   atomic operations on struct page
    mm/            one file per Linux mm file, same base name
    pool.py        a user of migrate_pages with pages of its own
    syscalls.py    all a user task may call
    patchview.py   a patch of the series as a diff of these files, toggles folded away
    boot.py        a fresh kernel from a machine size
What is modelled, what is left out: MODEL.md.
"""

from kstate.boot import MachineSize, boot
from kstate.patches import ALL, CLEAN, SERIES, parse_spec
from kstate.structs import Kernel

__all__ = ["ALL", "CLEAN", "SERIES", "Kernel", "MachineSize", "boot", "parse_spec"]
