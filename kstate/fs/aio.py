"""fs/aio.c: the ring of an asynchronous I/O context: cached pages that nobody ever writes back."""

from __future__ import annotations

from kstate.flags import EAGAIN, EINVAL, VM_READ, VM_SHARED, VM_SPECIAL, VM_WRITE, PG_writeback
from kstate.machine import (
    down_write,
    look,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
    touch,
    up_write,
)
from kstate.mm import filemap, migrate, mmap, swap, truncate
from kstate.mm.debug import BUG_ON
from kstate.pageflags import SetPageUptodate, get_page, peek, unlock_page
from kstate.structs import AddressSpace, Kernel, KioCtx, MmStruct, Page

RING = "ring"


def io_setup(k: Kernel, mm: MmStruct, start: int, pages_count: int) -> int:
    """io_setup(2): make a ring, and map it.

    Source:   fs/aio.c ioctx_alloc(), aio_setup_ring(), aio_private_file(), v4.3.
    Context:  process context; takes ring_lock, which keeps page migration from the ring until it is
              complete, and mmap_sem for write.
    Args:     start: page number; where the kernel would choose one.
    Returns:  0; -EAGAIN: there is a ring already (one for all processes here); -ENOMEM.
    Left out: I/O requests: the ring is written to by its owner only.
    """
    touch(k.swap, "ring")
    if RING in k.files:
        return EAGAIN
    mapping = k.files[RING] = AddressSpace(k.machine, RING, "aio", i_size=pages_count)
    ring = mapping.ring = KioCtx(mm)
    mutex_lock(ring.ring_lock)
    for index in range(pages_count):
        error, page = filemap.pagecache_get_page(k, mapping, index)
        if page is None:
            aio_free_ring(k, mapping)
            mutex_unlock(ring.ring_lock)
            return error
        ring.pages.append(page)
        SetPageUptodate(page)
        unlock_page(page)
    down_write(mm.mmap_sem)
    vm_flags = VM_READ | VM_WRITE | VM_SHARED | VM_SPECIAL  # VM_DONTEXPAND, of aio_ring_mmap()
    ret = mmap.mmap_region(k, mm, start, start + pages_count, vm_flags, mapping, 0)
    up_write(mm.mmap_sem)
    mutex_unlock(ring.ring_lock)
    return ret


def exit_aio(k: Kernel, mm: MmStruct) -> None:
    """The process goes: so does its ring.

    Source:   fs/aio.c exit_aio(), kill_ioctx(), v4.3.
    Context:  the last user of the address space; it is still mapped.
    """
    look(k.swap, "ring")
    mapping = k.files.get(RING)
    if mapping is not None and mapping.ring is not None and mapping.ring.mm is mm:
        aio_free_ring(k, mapping)


def aio_free_ring(k: Kernel, mapping: AddressSpace) -> None:
    """Take the ring's file away, then its pages.

    Source:   fs/aio.c aio_free_ring(), put_aio_ring_file(), v4.3.
    Context:  sleeps; private_lock keeps page migration from the ring.
    """
    truncate.truncate_setsize(k, mapping, 0)
    ring = mapping.ring
    assert ring is not None
    spin_lock(mapping.private_lock)
    mapping.ring = None
    spin_unlock(mapping.private_lock)
    touch(k.swap, "ring")
    del k.files[RING]
    for page in ring.pages:
        swap.put_page(k, page)


def aio_migratepage(k: Kernel, mapping: AddressSpace, newpage: Page, page: Page, mode: int) -> int:
    """Migrate a page of a ring.

    Source:   fs/aio.c aio_migratepage(), v4.3.
    Context:  both pages locked; takes private_lock, ring_lock by trylock, completion_lock.
    Returns:  as migrate_page; -EINVAL: the context is going away.
    Bugs:     BUG: under writeback.
    """
    spin_lock(mapping.private_lock)
    ring = mapping.ring
    if ring is None:
        spin_unlock(mapping.private_lock)
        return EINVAL
    if not mutex_trylock(ring.ring_lock):
        spin_unlock(mapping.private_lock)
        return EAGAIN
    index = page.index
    if index >= len(ring.pages):
        rc = EINVAL
    elif ring.pages[index] is not page:
        rc = EAGAIN
    else:
        BUG_ON(peek(page, PG_writeback) != 0, "bug-aio-migratepage", "PageWriteback(old)")
        get_page(newpage)
        rc = migrate.migrate_page_move_mapping(k, mapping, newpage, page, extra=1)
        if rc:
            swap.put_page(k, newpage)
        else:
            spin_lock_irq(ring.completion_lock)
            migrate.migrate_page_copy(k, newpage, page)
            ring.pages[index] = newpage
            spin_unlock_irq(ring.completion_lock)
            swap.put_page(k, page)
    mutex_unlock(ring.ring_lock)
    spin_unlock(mapping.private_lock)
    return rc
