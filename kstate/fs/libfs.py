"""fs/libfs.c, fs/ramfs: files that are nowhere but in the page cache; and what any file can do."""

from __future__ import annotations

from kstate.flags import EFBIG
from kstate.fs import buffer, ext2, fuse
from kstate.machine import mutex_lock, mutex_unlock, touch
from kstate.mm import filemap, page_writeback, shmem, swap, truncate
from kstate.pageflags import SetPageUptodate, unlock_page
from kstate.structs import AddressSpace, Kernel, Page


def notify_change(k: Kernel, mapping: AddressSpace, pages: int) -> None:
    """ftruncate(2).

    Source:   fs/attr.c notify_change(); fs/libfs.c simple_setattr() for ramfs, v4.3.
    Context:  takes i_mutex.                   Args: pages: the new size.
    """
    if mapping.shmem:
        shmem.shmem_setsize(k, mapping, pages)
    elif mapping.fs == "ext2":
        ext2.ext2_setsize(k, mapping, pages)
    elif mapping.fs == "fuse":
        fuse.fuse_setsize(k, mapping, pages)
    else:
        mutex_lock(mapping.i_mutex)
        truncate.truncate_setsize(k, mapping, pages)
        mutex_unlock(mapping.i_mutex)


def vfs_fsync(k: Kernel, mapping: AddressSpace) -> int:
    """fsync(2).

    Source:   fs/sync.c vfs_fsync(); fs/libfs.c generic_file_fsync() for ext2, noop_fsync();
              fs/fuse/file.c fuse_fsync_common(), v4.3.
    Context:  sleeps.                          Returns: 0.
    Left out: metadata.
    """
    if mapping.accounts_dirty:
        page_writeback.filemap_write_and_wait(k, mapping)
    return 0


def generic_file_write(k: Kernel, mapping: AddressSpace, index: int, pages_max: int) -> int:
    """pwrite(2) of one whole page.

    Source:   mm/filemap.c generic_perform_write(); fs/buffer.c block_write_begin(),
              generic_write_end(); fs/libfs.c simple_write_end(); mm/shmem.c shmem_write_begin(),
              shmem_write_end(); fs/fuse/file.c fuse_perform_write(), v4.3.
    Context:  takes i_mutex, then the page lock.
    Args:     index: page offset; the file grows. pages_max: it cannot be larger.
    Returns:  0; -EFBIG; -ENOMEM.
    Left out: throttling of dirtiers, partial pages, writes that are faulted in from user memory.
    """
    if index >= pages_max:
        return EFBIG
    mutex_lock(mapping.i_mutex)
    if mapping.shmem:
        error, _, page = shmem.shmem_getpage(k, mapping, index, write=True)
    else:
        error, page = filemap.pagecache_get_page(k, mapping, index)
    if page is not None:
        _write_page(k, mapping, page, index)
        if mapping.fs != "fuse" and index >= mapping.i_size:
            mapping.i_size = index + 1
        unlock_page(page)
        swap.put_page(k, page)
        if mapping.fs == "fuse" and index >= mapping.i_size:
            mapping.i_size = index + 1
    mutex_unlock(mapping.i_mutex)
    return error


def _write_page(k: Kernel, mapping: AddressSpace, page: Page, index: int) -> None:
    """Copy the user's bytes in, and mark the page dirty as its file system does: fuse sends it to
    its server at once. A tmpfs file grows first, others after."""
    if mapping.fs == "ext2":
        buffer.create_page_buffers(page, mapping)
    k.tokens_count += 1
    touch(page, "content")
    page._token = k.tokens_count
    k.machine.note("page-written", page, None)  # by no pte
    if mapping.shmem and index >= mapping.i_size:
        mapping.i_size = index + 1
    if mapping.fs == "fuse":
        mapping.backing[index] = page._token
    SetPageUptodate(page)
    if mapping.fs == "ext2":
        buffer.mark_buffer_dirty(k, page)
    elif mapping.fs != "fuse":
        page_writeback.set_page_dirty(k, page)
