"""fs/buffer.c: buffers of a disk file's pages. All of a page's buffers are one here."""

from __future__ import annotations

from kstate.flags import PG_locked, PG_writeback
from kstate.machine import (
    look,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_unlock,
)
from kstate.mm import memcontrol, page_writeback, swap, util
from kstate.mm.debug import BUG_ON
from kstate.pageflags import (
    ClearPagePrivate,
    PageDirty,
    PagePrivate,
    PageWriteback,
    SetPagePrivate,
    TestSetPageDirty,
    get_page,
    peek,
    unlock_page,
)
from kstate.structs import (
    AddressSpace,
    BufferHead,
    Kernel,
    Page,
    buffer_dirty,
    test_clear_buffer_dirty,
    test_set_buffer_dirty,
)


def page_buffers(page: Page) -> BufferHead:
    """The buffers of a page that has some. Source: include/linux/buffer_head.h, v4.3. No step.

    Context:  page locked or private_lock held.
    Bugs:     BUG: it has none."""
    buffers = page.buffers
    BUG_ON(buffers is None, "bug-page-buffers", "!PagePrivate(page)")
    assert buffers is not None
    return buffers


def create_page_buffers(page: Page, mapping: AddressSpace, dirty: bool = False) -> BufferHead:
    """Give a page buffers if it has none.

    Source:   fs/buffer.c create_page_buffers(), create_empty_buffers(), v4.3.
    Context:  page locked; takes private_lock. The buffers hold a reference to the page.
    Args:     dirty: as new ones are to be; they are also where the page is.
    """
    if not PagePrivate(page):
        buffer = BufferHead(page.machine, dirty)
        spin_lock(mapping.private_lock)
        if PageDirty(page):
            test_set_buffer_dirty(buffer)
        get_page(page)
        SetPagePrivate(page)
        page.buffers = buffer
        spin_unlock(mapping.private_lock)
    return page_buffers(page)


def mark_buffer_dirty(k: Kernel, page: Page) -> None:
    """A buffer was written to: so it is dirty, and its page is.

    Source:   fs/buffer.c mark_buffer_dirty(), __set_page_dirty(), v4.3.
    Context:  page locked.                     Left out: inode dirtying.
    """
    if test_set_buffer_dirty(page_buffers(page)):
        return
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    if not TestSetPageDirty(page):
        mapping = util.page_mapping(k, page)
        if mapping is not None:
            page_writeback.__set_page_dirty(k, page, mapping, memcg, warn=False)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)


def try_to_free_buffers(k: Kernel, page: Page) -> bool:
    """Take a page's buffers away, unless they are in use.

    Source:   fs/buffer.c try_to_free_buffers(), drop_buffers(), v4.3.
    Context:  page locked; takes private_lock, or not where the page has left its file.
    Bugs:     BUG: page not locked.
    """
    mapping = page.mapping
    BUG_ON(not peek(page, PG_locked), "bug-try-to-free-buffers", "!PageLocked(page)")
    if PageWriteback(page):
        return False
    if not isinstance(mapping, AddressSpace):
        return _drop_buffers(k, page)
    spin_lock(mapping.private_lock)
    dropped = _drop_buffers(k, page)
    if dropped:
        # Clean buffers of a dirty page: the file system wrote them by itself, or discarded them.
        page_writeback.cancel_dirty_page(k, page)
    spin_unlock(mapping.private_lock)
    return dropped


def _drop_buffers(k: Kernel, page: Page) -> bool:
    buffer = page_buffers(page)
    if buffer.lock.owner is not None or buffer_dirty(buffer):
        return False
    ClearPagePrivate(page)
    page.buffers = None
    swap.put_page(k, page)
    return True


def try_to_release_page(k: Kernel, page: Page) -> bool:
    """Ask the file system to take what it has attached to a page off it.

    Source:   mm/filemap.c try_to_release_page(), v4.3; ext2 leaves it to try_to_free_buffers().
    Context:  page locked.                     Bugs: BUG: not locked.
    """
    BUG_ON(not peek(page, PG_locked), "bug-try-to-release-page", "!PageLocked(page)")
    return not PageWriteback(page) and try_to_free_buffers(k, page)


def block_invalidatepage(k: Kernel, page: Page) -> None:
    """The page is being truncated: its buffers need not be written any more.

    Source:   fs/buffer.c block_invalidatepage(), discard_buffer(), v4.3.
    Context:  page locked; waits for the buffers' lock.
    """
    if not PagePrivate(page):
        return
    buffer = page_buffers(page)
    mutex_lock(buffer.lock)
    test_clear_buffer_dirty(buffer)
    mutex_unlock(buffer.lock)
    try_to_release_page(k, page)


def block_write_full_page(k: Kernel, mapping: AddressSpace, page: Page, sync: bool) -> None:
    """Write a page by way of its buffers; it comes back unlocked.

    Source:   fs/buffer.c block_write_full_page(), __block_write_full_page(),
              end_buffer_async_write(), v4.3.
    Context:  page locked, clean.              Args: sync: wait for the buffers' lock.
    Bugs:     BUG: under writeback.
    """
    index = page.index
    if index >= mapping.i_size:
        block_invalidatepage(k, page)  # truncated meanwhile: make the buffers freeable
        unlock_page(page)
        return
    buffer = create_page_buffers(page, mapping, dirty=True)
    write = False
    if sync:
        mutex_lock(buffer.lock)
        locked = True
    else:
        locked = mutex_trylock(buffer.lock)
        if not locked:
            page_writeback.redirty_page_for_writepage(k, page)
    if locked:
        write = test_clear_buffer_dirty(buffer)
        if not write:
            mutex_unlock(buffer.lock)
    BUG_ON(peek(page, PG_writeback) != 0, "bug-block-write-full-page", "PageWriteback(page)")
    page_writeback.set_page_writeback(k, page)
    unlock_page(page)
    if write:
        look(page, "content")
        mapping.backing[index] = page._token
        mutex_unlock(buffer.lock)
    page_writeback.end_page_writeback(k, page)
