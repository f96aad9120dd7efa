"""mm/page_io.c: reading and writing the swap device, a RAM disk: it answers at once."""

from __future__ import annotations

from kstate.flags import PG_locked, PG_uptodate
from kstate.machine import look, touch
from kstate.mm import page_writeback, swapfile
from kstate.mm.debug import VM_BUG_ON_PAGE
from kstate.pageflags import SetPageUptodate, peek, unlock_page
from kstate.structs import Kernel, Page


def swap_readpage(k: Kernel, page: Page) -> None:
    """Read a page in from its slot; it is unlocked when that is done.

    Source:   mm/page_io.c swap_readpage(), end_swap_bio_read(), v4.3.
    Context:  page locked, in the swap cache.  Bugs: VM_BUG: not locked, up to date already.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-swap-readpage-locked", "!PageLocked(page)")
    VM_BUG_ON_PAGE(
        peek(page, PG_uptodate) != 0, "vm-bug-swap-readpage-uptodate", "PageUptodate(page)"
    )
    touch(page, "content")
    page._token = k.swap.backing.get(page.private, 0)
    SetPageUptodate(page)
    unlock_page(page)


def swap_writepage(k: Kernel, page: Page) -> None:
    """Write a page out to its slot; it comes back unlocked.

    Source:   mm/page_io.c swap_writepage(), __swap_writepage(), end_swap_bio_write(), v4.3.
    Context:  page locked, in the swap cache.
    """
    if swapfile.try_to_free_swap(k, page):
        unlock_page(page)
        return
    slot = page.private
    page_writeback.set_page_writeback(k, page)
    unlock_page(page)
    look(page, "content")
    k.swap.backing[slot] = page._token
    page_writeback.end_page_writeback(k, page)
