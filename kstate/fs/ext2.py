"""fs/ext2/inode.c, fs/mpage.c: a disk file system, on a RAM disk that answers at once."""

from __future__ import annotations

from kstate.fs import buffer
from kstate.machine import (
    look,
    mutex_lock,
    mutex_unlock,
)
from kstate.mm import page_writeback, truncate
from kstate.pageflags import unlock_page
from kstate.structs import AddressSpace, Kernel, Page, test_clear_buffer_dirty


def ext2_setsize(k: Kernel, mapping: AddressSpace, pages: int) -> None:
    """ftruncate(2) of a disk file.

    Source:   fs/ext2/inode.c ext2_setattr(), ext2_setsize(), v4.3.
    Context:  takes i_mutex.
    Args:     pages: the new size.
    Left out: blocks on the disk; a shorter file's are gone, as holes.
    """
    mutex_lock(mapping.i_mutex)
    if mapping.i_size != pages:
        truncate.truncate_setsize(k, mapping, pages)
        for index in [index for index in mapping.backing if index >= pages]:
            del mapping.backing[index]
    mutex_unlock(mapping.i_mutex)


def ext2_writepages(k: Kernel, mapping: AddressSpace, *, sync: bool) -> None:
    """Write every dirty page of a file to the disk.

    Source:   fs/ext2/inode.c ext2_writepages(), fs/mpage.c mpage_writepages(), v4.3.
    Args:     sync: as write_cache_pages.
    """
    page_writeback.write_cache_pages(
        k, mapping, lambda page: __mpage_writepage(k, mapping, page, sync), sync=sync
    )


def __mpage_writepage(k: Kernel, mapping: AddressSpace, page: Page, sync: bool) -> None:
    """Write one page to the disk; it comes back unlocked.

    Source:   fs/mpage.c __mpage_writepage(), clean_buffers(), mpage_end_io(), v4.3.
    Context:  page locked, clean.
    Left out: a batch of pages in one request.
    """
    if page.buffers is not None and not test_clear_buffer_dirty(page.buffers):
        # A dirty page with clean buffers confuses it: let the buffers say what is to be written.
        buffer.block_write_full_page(k, mapping, page, sync=sync)
        return
    index = page.index
    page_writeback.set_page_writeback(k, page)
    unlock_page(page)
    look(page, "content")
    mapping.backing[index] = page._token
    page_writeback.end_page_writeback(k, page)
