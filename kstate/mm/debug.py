"""mm/debug.c and include/linux/mmdebug.h: the kernel's own checks.

A check looks at private slots and never steps: it is no part of what races.
"""

from __future__ import annotations

from kstate.machine import KernelBug
from kstate.machine.machine import calling_function


def BUG(id: str, text: str) -> None:
    """BUG(): ends the run. id: as in `kfuzz findings`. text: what went wrong, the kernel's words.

    Bugs: KernelBug always.
    """
    where = calling_function(1)
    raise KernelBug(id, f"kernel BUG at {where}: {text}", where)


def BUG_ON(condition: bool, id: str, text: str) -> None:
    if condition:
        where = calling_function(1)
        raise KernelBug(id, f"kernel BUG at {where}: BUG_ON({text})", where)


def VM_BUG_ON_PAGE(condition: bool, id: str, text: str) -> None:
    """VM_BUG_ON_PAGE(), VM_BUG_ON_VMA(): fires with CONFIG_DEBUG_VM."""
    if condition:
        where = calling_function(1)
        raise KernelBug(id, f"kernel BUG at {where}: VM_BUG_ON_PAGE({text})", where)


def VM_BUG_ON(condition: bool, id: str, text: str) -> None:
    if condition:
        where = calling_function(1)
        raise KernelBug(id, f"kernel BUG at {where}: VM_BUG_ON({text})", where)
