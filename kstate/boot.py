"""A fresh kernel from a machine size."""

from __future__ import annotations

from dataclasses import dataclass

from kstate.machine import Machine
from kstate.structs import AddressSpace, Kernel, MmStruct, Pagevec, Zone, take_pool_page

FILE_PAGES = 2


@dataclass(frozen=True)
class MachineSize:
    """How big the machine is. cpus: one task each. zones: one a node. pages: of all zones together.
    pool: pages set aside for migration, on the last node, part of `pages`."""

    cpus: int = 2
    zones: int = 2
    pages: int = 16
    pool: int = 2


def boot(
    machine: Machine,
    patches: frozenset[str],
    size: MachineSize,
    processes: tuple[str, ...] = ("A", "B"),
) -> Kernel:
    """A kernel with nothing mapped, two files of two unread pages, f0 on tmpfs and f1 on ext2,
    and two memory groups: M0, in which all processes begin, and M1.

    Args:
        machine: to run on; nothing has run on it yet.
        patches: toggles, see kstate.patches.
        processes: names of the processes that exist from the start.
    """
    k = Kernel(machine, patches)
    per_zone = size.pages // size.zones
    for node in range(size.zones):
        first = node * per_zone
        last = size.pages if node == size.zones - 1 else first + per_zone
        k.zones.append(Zone(machine, node, range(first, last)))
    k.lru_add_pvecs = [Pagevec(machine, "lru_add_pvec", cpu) for cpu in range(size.cpus)]
    k.lru_rotate_pvecs = [Pagevec(machine, "lru_rotate_pvec", cpu) for cpu in range(size.cpus)]
    k.lru_deactivate_file_pvecs = [
        Pagevec(machine, "lru_deactivate_file_pvec", cpu) for cpu in range(size.cpus)
    ]
    k.activate_page_pvecs = [
        Pagevec(machine, "activate_page_pvec", cpu) for cpu in range(size.cpus)
    ]
    k.files = {
        "f0": AddressSpace(machine, "f0", "tmpfs", i_size=FILE_PAGES),
        "f1": AddressSpace(machine, "f1", "ext2", i_size=FILE_PAGES),
    }
    k.processes = {name: MmStruct(machine, name) for name in processes}
    for mm in k.processes.values():
        mm._memcg = k.memcgs[0]
    for _ in range(size.pool):
        take_pool_page(k)
    return k
