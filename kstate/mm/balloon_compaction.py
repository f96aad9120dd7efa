"""mm/balloon_compaction.c: pages a balloon holds, and the virtio driver that moves them.

A balloon page is on no LRU list and mapped by nobody: its mapcount says what it is. PG_private
says that it is on the balloon's list; a page that was isolated has lost it.
"""

from __future__ import annotations

from kstate.flags import EAGAIN, ENOENT, ENOMEM, MIGRATEPAGE_SUCCESS, PG_locked
from kstate.machine import (
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock_irq,
    spin_unlock_irq,
)
from kstate.mm import page_alloc, swap
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageBalloon,
    ClearPagePrivate,
    PageBalloon,
    PagePrivate,
    SetPageBalloon,
    SetPagePrivate,
    get_page,
    get_page_unless_zero,
    lock_page,
    peek,
    trylock_page,
    unlock_page,
)
from kstate.patches import FIX_BALLOON_ENQUEUE_LOCK, P07
from kstate.structs import BalloonDevInfo, Kernel, Page


def balloon_device(k: Kernel) -> BalloonDevInfo:
    """The machine's one balloon, made when it is first asked for. No step.

    Source:   drivers/virtio/virtio_balloon.c virtballoon_probe(), v4.3.
    """
    if k.balloon is None:
        k.balloon = BalloonDevInfo(k.machine)
    return k.balloon


def balloon_page_insert(balloon: BalloonDevInfo, page: Page) -> None:
    """Source: include/linux/balloon_compaction.h balloon_page_insert(), v4.3.

    Context:  page locked, pages_lock held.
    """
    SetPageBalloon(page)
    SetPagePrivate(page)
    balloon.pages.insert(0, page)


def balloon_page_delete(balloon: BalloonDevInfo, page: Page) -> None:
    """The page is no balloon page any more; off the list, if it is on it.

    Source:   include/linux/balloon_compaction.h balloon_page_delete(), v4.3.
    Context:  page locked; pages_lock held, or the page is isolated.
    """
    ClearPageBalloon(page)
    if PagePrivate(page):
        ClearPagePrivate(page)
        balloon.pages.remove(page)


def balloon_page_enqueue(k: Kernel, balloon: BalloonDevInfo) -> Page | None:
    """Allocate a page and put it on the balloon's list.

    Source:   mm/balloon_compaction.c balloon_page_enqueue(), v4.3.
                                               Patches: fix:balloon-enqueue-lock.
    Context:  takes the page lock, pages_lock.
    Returns:  None where there is no memory.
    Bugs:     BUG: somebody has locked a page that was just allocated.
    """
    page = page_alloc.alloc_page(k)
    if page is None:
        return None
    if FIX_BALLOON_ENQUEUE_LOCK in k.patches:
        lock_page(page)
    else:
        locked = trylock_page(page)
        BUG_ON(not locked, "bug-balloon-enqueue-locked", "!trylock_page(page)")
    spin_lock_irq(balloon.pages_lock)
    balloon_page_insert(balloon, page)
    spin_unlock_irq(balloon.pages_lock)
    unlock_page(page)
    return page


def balloon_page_dequeue(k: Kernel, balloon: BalloonDevInfo) -> Page | None:
    """Take a page off the balloon's list, for the driver to free.

    Source:   mm/balloon_compaction.c balloon_page_dequeue(), v4.3.
    Context:  takes pages_lock, and page locks by trylock: a locked page is passed over. The lock is
              held across the walk, as since v4.5; see MODEL.md.
    Returns:  None where all pages are locked or isolated.
    Bugs:     BUG: the list is empty and nothing is isolated: pages were lost.
    """
    dequeued = None
    spin_lock_irq(balloon.pages_lock)
    for page in balloon.pages:
        if trylock_page(page):
            balloon_page_delete(balloon, page)
            unlock_page(page)
            dequeued = page
            break
    BUG_ON(
        dequeued is None and not balloon.pages and not balloon.isolated_pages,
        "bug-balloon-dequeue-lost",
        "list_empty(&b_dev_info->pages) && !b_dev_info->isolated_pages",
    )
    spin_unlock_irq(balloon.pages_lock)
    return dequeued


def balloon_page_movable(page: Page) -> bool:
    """Could it be isolated? Source: include/linux/balloon_compaction.h, v4.3."""
    return PageBalloon(page) and PagePrivate(page)


def balloon_page_isolate(k: Kernel, page: Page) -> bool:
    """Take a page off the balloon's list to migrate it, with a reference.

    Source:   mm/balloon_compaction.c balloon_page_isolate(), __isolate_balloon_page(), v4.3.
    Context:  the page is looked at without a reference first; takes its lock by trylock.
    """
    if not get_page_unless_zero(page):
        return False
    if trylock_page(page):
        if balloon_page_movable(page):
            balloon = balloon_device(k)
            spin_lock_irq(balloon.pages_lock)
            ClearPagePrivate(page)
            balloon.pages.remove(page)
            balloon.isolated_pages += 1
            spin_unlock_irq(balloon.pages_lock)
            unlock_page(page)
            return True
        unlock_page(page)
    swap.put_page(k, page)
    return False


def balloon_page_putback(k: Kernel, page: Page) -> None:
    """Back on the balloon's list, and drop the isolation's reference.

    Source:   mm/balloon_compaction.c balloon_page_putback(), __putback_balloon_page(), v4.3.
    Context:  takes the page lock.             Bugs: reports WARN: no balloon page.
    """
    lock_page(page)
    if PageBalloon(page):
        balloon = balloon_device(k)
        spin_lock_irq(balloon.pages_lock)
        SetPagePrivate(page)
        balloon.pages.insert(0, page)
        balloon.isolated_pages -= 1
        spin_unlock_irq(balloon.pages_lock)
        swap.put_page(k, page)
    else:
        _warn_not_movable(k, page, "balloon_page_putback")
    unlock_page(page)


def balloon_page_migrate(k: Kernel, newpage: Page, page: Page) -> int:
    """What move_to_new_page() is to other pages.

    Source:   mm/balloon_compaction.c balloon_page_migrate(), v4.3.    Patches: P07.
    Context:  page locked and isolated; newpage locked here, or by the caller with P07.
    Returns:  0, or -EAGAIN: the driver is busy.
    Bugs:     BUG: newpage's lock is taken. VM_BUG (P07): either page not locked. Reports WARN: no
              balloon page.
    """
    if P07 in k.patches:
        VM_BUG_ON_PAGE(
            not peek(page, PG_locked) & peek(newpage, PG_locked),
            "vm-bug-balloon-migrate-unlocked",
            "!PageLocked(page) || !PageLocked(newpage)",
        )
    else:
        locked = trylock_page(newpage)
        BUG_ON(not locked, "bug-balloon-newpage-trylock", "!trylock_page(newpage)")
    rc = EAGAIN
    if PageBalloon(page):
        rc = virtballoon_migratepage(k, newpage, page)
    else:
        _warn_not_movable(k, page, "balloon_page_migrate")
    if P07 not in k.patches:
        unlock_page(newpage)
    return rc


def _warn_not_movable(k: Kernel, page: Page, function: str) -> None:
    k.machine.report(
        "warn-balloon-not-movable",
        "WARNING: !__is_movable_balloon_page(page)",
        f"mm/balloon_compaction.py:{function}",
        page,
    )


def virtballoon_migratepage(k: Kernel, newpage: Page, page: Page) -> int:
    """The host is given newpage instead of page.

    Source:   drivers/virtio/virtio_balloon.c virtballoon_migratepage(), v4.3.
    Context:  both pages locked, page isolated; takes balloon_lock by trylock.
    Returns:  0, or -EAGAIN: the driver is inflating or deflating.
    Left out: the host, which is told twice and answers.
    """
    balloon = balloon_device(k)
    if not mutex_trylock(balloon.balloon_lock):
        return EAGAIN
    get_page(newpage)
    spin_lock_irq(balloon.pages_lock)
    balloon_page_insert(balloon, newpage)
    balloon.isolated_pages -= 1
    spin_unlock_irq(balloon.pages_lock)
    k.machine.note("page-moved", page, newpage)  # its place, not its content, which nobody wants
    balloon_page_delete(balloon, page)
    mutex_unlock(balloon.balloon_lock)
    swap.put_page(k, page)
    return MIGRATEPAGE_SUCCESS


def fill_balloon(k: Kernel) -> int:
    """Inflate the balloon by one page.

    Source:   drivers/virtio/virtio_balloon.c fill_balloon(), v4.3.
    Context:  process context; takes balloon_lock.             Returns: 0 or -ENOMEM.
    """
    balloon = balloon_device(k)
    mutex_lock(balloon.balloon_lock)
    page = balloon_page_enqueue(k, balloon)
    balloon.num_pages += page is not None
    mutex_unlock(balloon.balloon_lock)
    return ENOMEM if page is None else 0


def leak_balloon(k: Kernel) -> int:
    """Deflate the balloon by one page.

    Source:   drivers/virtio/virtio_balloon.c leak_balloon(), towards_target(), v4.3.
    Context:  process context; takes balloon_lock.
    Returns:  0; -ENOENT: it is flat; -EAGAIN: no page is to be had just now.
    """
    balloon = balloon_device(k)
    mutex_lock(balloon.balloon_lock)
    if not balloon.num_pages:
        mutex_unlock(balloon.balloon_lock)
        return ENOENT
    page = balloon_page_dequeue(k, balloon)
    balloon.num_pages -= page is not None
    mutex_unlock(balloon.balloon_lock)
    if page is None:
        return EAGAIN
    swap.put_page(k, page)
    return 0
