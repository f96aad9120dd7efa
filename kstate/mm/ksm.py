"""mm/ksm.c: merging pages that hold the same."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    EAGAIN,
    EFAULT,
    ENOENT,
    ENOMEM,
    FAULT_FLAG_WRITE,
    FOLL_GET,
    FOLL_MIGRATION,
    SWAP_AGAIN,
    VM_FAULT_FROZEN,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
    VM_FAULT_WRITE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_SHARED,
    VM_SPECIAL,
    PG_locked,
)
from kstate.machine import (
    down_read,
    down_write,
    look,
    mutex_lock,
    mutex_unlock,
    retry_when_changed,
    spin_lock,
    spin_unlock,
    up_read,
    up_write,
)
from kstate.mm import (
    gup,
    huge_memory,
    memory,
    migrate,
    mlock,
    mmap,
    page_alloc,
    page_writeback,
    rmap,
    swap,
    swapfile,
)
from kstate.mm.debug import BUG, VM_BUG_ON_PAGE
from kstate.pageflags import (
    PageAnon,
    PageKsm,
    PageMlocked,
    PageSwapCache,
    PageUptodate,
    SetPageDirty,
    SetPageUptodate,
    get_page,
    get_page_unless_zero,
    lock_page,
    page_count,
    page_mapcount,
    page_mapped,
    peek,
    set_page_locked,
    trylock_page,
    unlock_page,
)
from kstate.patches import (
    FIX_KSM_APPEND_FIRST,
    FIX_KSM_MERGEABLE_VMA,
    FIX_KSM_MLOCK_PTL,
    FIX_KSM_NO_FILE,
    FIX_KSM_STALE_NODE,
)
from kstate.structs import (
    NO_STABLE_NODE,
    PRESENT,
    AnonVma,
    Kernel,
    Ksm,
    MmStruct,
    Page,
    PteVal,
    RmapItem,
    StableNode,
    VmAreaStruct,
    mm_users,
    pte_same,
    pte_with,
    ptep_get_and_clear,
    same_content,
    set_pte_at,
)


def ksm_globals(k: Kernel) -> Ksm:
    """Source: none: mm/ksm.c's globals are there from boot. No step."""
    if k.ksm is None:
        k.ksm = Ksm(k.machine)
    return k.ksm


def ksm_test_exit(mm: MmStruct) -> bool:
    """Is the address space on its way out? Source: mm/ksm.c ksm_test_exit(), v4.3."""
    return mm_users(mm) == 0


def ksm_exit(mm: MmStruct) -> None:
    """Wait for ksmd to leave an address space that is about to go.

    Source:   mm/ksm.c __ksm_exit(), v4.3.    Context: mm_users is 0.
    Left out: ksm_mmlist_lock; no waiting where ksmd has looked at nothing in it yet.
    """
    if mm.mergeable:
        down_write(mm.mmap_sem)
        up_write(mm.mmap_sem)


def page_stable_node(page: Page) -> StableNode | None:
    """The node of a KSM page, if it has one. Source: mm/ksm.c page_stable_node(), v4.3."""
    mapping = page.mapping
    return mapping if isinstance(mapping, StableNode) and mapping is not NO_STABLE_NODE else None


def remove_node_from_stable_tree(k: Kernel, node: StableNode) -> None:
    """The node's page is gone. Source: mm/ksm.c remove_node_from_stable_tree(), v4.3."""
    for item in node.items:
        if item.anon_vma is not None:
            rmap.put_anon_vma(item.anon_vma)
        item.anon_vma = item.node = None
    node.items = []
    ksm_globals(k).stable_tree.remove(node)


def get_ksm_page(k: Kernel, node: StableNode, lock_it: bool) -> Page | None:
    """A node's page, with a reference, if it still is the node's; a stale node is removed.

    Source:   mm/ksm.c get_ksm_page(), v4.3.
    Context:  ksm_thread_mutex; sleeps for the page lock if lock_it. Where the kernel spins on a
              frozen count this sleeps until it has changed.
    """
    while True:
        page = node.kpage
        if page.mapping is node:
            while not get_page_unless_zero(page):
                if not PageSwapCache(page):
                    break
                retry_when_changed((page, "_refcount"), (page, "_flags"))
            else:
                if page.mapping is node:
                    if not lock_it:
                        return page
                    lock_page(page)
                    if page.mapping is node:
                        return page
                    unlock_page(page)
                swap.put_page(k, page)
        if node.kpage is page:  # else it has been migrated
            remove_node_from_stable_tree(k, node)
            return None


def get_rmap_item(k: Kernel, mm: MmStruct, address: int) -> RmapItem:
    """Source: mm/ksm.c get_next_rmap_item(), v4.3. Context: ksm_thread_mutex."""
    items = ksm_globals(k).rmap_items
    item = items.get((mm.id, address))
    if item is None:
        item = items[mm.id, address] = RmapItem(mm, address)
    return item


def remove_rmap_item_from_tree(k: Kernel, item: RmapItem) -> None:
    """A place is not that of its KSM page any more.

    Source:   mm/ksm.c remove_rmap_item_from_tree(), v4.3.
    Context:  ksm_thread_mutex; takes the lock of the node's page.
    """
    node = item.node
    if node is None:
        return
    page = get_ksm_page(k, node, True)
    if page is None:
        return
    node.items.remove(item)
    unlock_page(page)
    swap.put_page(k, page)
    if item.anon_vma is not None:
        rmap.put_anon_vma(item.anon_vma)
    item.anon_vma = item.node = None


def find_mergeable_vma(mm: MmStruct, address: int) -> VmAreaStruct | None:
    """Source: mm/ksm.c find_mergeable_vma(), v4.3. Context: mmap_sem held."""
    if ksm_test_exit(mm):
        return None
    vma = mmap.find_vma(mm, address)
    if vma is None or vma.vm_start > address:
        return None
    if not vma.vm_flags & VM_MERGEABLE or vma.anon_vma is None:
        return None
    return vma


def get_mergeable_page(k: Kernel, item: RmapItem) -> Page | None:
    """The anonymous page at a place, with a reference.

    Source:   mm/ksm.c get_mergeable_page(), scan_get_next_rmap_item(), v4.3.
    Context:  takes mmap_sem for read.
    """
    mm = item.mm
    down_read(mm.mmap_sem)
    vma = find_mergeable_vma(mm, item.address)
    page = None if vma is None else gup.follow_page_mask(k, vma, item.address, FOLL_GET)
    if not isinstance(page, Page):
        page = None
    elif not PageAnon(page):
        swap.put_page(k, page)
        page = None
    up_read(mm.mmap_sem)
    return page


def break_ksm(k: Kernel, vma: VmAreaStruct, address: int) -> int:
    """Give an address a page of its own again, as a write would.

    Source:   mm/ksm.c break_ksm(), v4.3.     Context: mmap_sem held.
    Returns:  0 or -ENOMEM.
    """
    ret = 0
    done = VM_FAULT_WRITE | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_OOM
    while not ret & done:
        page = gup.follow_page_mask(k, vma, address, FOLL_GET | FOLL_MIGRATION)
        if not isinstance(page, Page):
            break
        if PageKsm(page):
            ret = memory.handle_mm_fault(k, vma, address, FAULT_FLAG_WRITE)
            if ret & VM_FAULT_FROZEN:
                migrate.migration_entry_unfrozen(memory.pte_offset(vma.vm_mm, address))
        else:
            ret = VM_FAULT_WRITE
        swap.put_page(k, page)
    return ENOMEM if ret & VM_FAULT_OOM else 0


def break_cow(k: Kernel, item: RmapItem) -> None:
    """Undo a merge that came to nothing.

    Source:   mm/ksm.c break_cow(), v4.3.     Context: takes mmap_sem for read.
    """
    remove_rmap_item_from_tree(k, item)  # it is in none, but with fix:ksm-append-first
    if item.anon_vma is not None:
        rmap.put_anon_vma(item.anon_vma)
        item.anon_vma = None
    down_read(item.mm.mmap_sem)
    vma = find_mergeable_vma(item.mm, item.address)
    if vma is not None:
        break_ksm(k, vma, item.address)
    up_read(item.mm.mmap_sem)


def page_address_in_vma(page: Page, vma: VmAreaStruct) -> int:
    """Where a vma would map a plain anonymous page.

    Source:   mm/rmap.c page_address_in_vma(), v4.3.
    Returns:  a page number, or -EFAULT: not there, or a KSM page.
    """
    anon_vma = page.mapping
    if not isinstance(anon_vma, AnonVma) or vma.anon_vma is None:
        return EFAULT
    if anon_vma.root is not vma.anon_vma.root:
        return EFAULT
    address = vma.vm_start + page.index - vma.vm_pgoff
    return address if vma.vm_start <= address < vma.vm_end else EFAULT


def write_protect_page(k: Kernel, vma: VmAreaStruct, page: Page) -> PteVal | None:
    """Make the pte that maps a page read-only, unless somebody holds the page for I/O.

    Source:   mm/ksm.c write_protect_page(), v4.3.
    Context:  page locked, with a reference of the caller's; takes the ptl.
    Returns:  the pte as it is then; None: not done.
    """
    address = page_address_in_vma(page, vma)
    if address == EFAULT:
        return None
    pte = rmap.page_check_address(k, page, vma, address)
    if pte is None:
        return None
    value = pte.value
    if value.write or value.dirty:
        swapped = PageSwapCache(page)
        # The pte is empty first: from here on nobody gets at the page without the ptl.
        value = ptep_get_and_clear(pte)
        if page_mapcount(page) + 1 + swapped != page_count(page):
            set_pte_at(pte, value)
            spin_unlock(pte.lock)
            return None
        if value.dirty:
            page_writeback.set_page_dirty(k, page)
        set_pte_at(pte, pte_with(value, write=False, dirty=False))
    orig_pte = pte.value
    spin_unlock(pte.lock)
    return orig_pte


def replace_page(k: Kernel, vma: VmAreaStruct, page: Page, kpage: Page, orig_pte: PteVal) -> int:
    """Map kpage where `page` was. The new pte has no soft-dirty bit, whatever the old one had.

    Source:   mm/ksm.c replace_page(), v4.3.
    Context:  page locked, kpage not; takes the ptl.
    Returns:  0; -EFAULT: the pte has changed.
    """
    address = page_address_in_vma(page, vma)
    if address == EFAULT:
        return EFAULT
    pte = memory.pte_offset(vma.vm_mm, address)
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig_pte):
        spin_unlock(pte.lock)
        return EFAULT
    get_page(kpage)
    rmap.page_add_anon_rmap(kpage, vma, address)
    ptep_get_and_clear(pte)
    set_pte_at(pte, PteVal(PRESENT, kpage, write=vma.prot_write, young=True))
    k.machine.note("page-merged", page, kpage)
    rmap.page_remove_rmap(k, page)
    if not page_mapped(page):
        swapfile.try_to_free_swap(k, page)
    swap.put_page(k, page)
    spin_unlock(pte.lock)
    return 0


def try_to_merge_one_page(
    k: Kernel, vma: VmAreaStruct, item: RmapItem, page: Page, kpage: Page | None
) -> int:
    """Make `page` a KSM page, or put kpage in its place.

    Source:   mm/ksm.c try_to_merge_one_page(), v4.3.
                                               Patches: fix:ksm-append-first, fix:ksm-mergeable-vma.
    Context:  mmap_sem held for read; takes page's lock by trylock, and kpage's after it.
    Args:     kpage: None: `page` itself is to become one.
    Returns:  0, or -EFAULT: not done.
    """
    if page is kpage:
        return 0  # forked since it was merged
    if FIX_KSM_MERGEABLE_VMA not in k.patches:
        if not vma.vm_flags & VM_MERGEABLE:
            return EFAULT
    if huge_memory.split_failed(k, page):
        return EFAULT
    if not PageAnon(page) or not trylock_page(page):
        return EFAULT
    err = EFAULT
    orig_pte = write_protect_page(k, vma, page)
    if orig_pte is not None:
        if kpage is None:
            if FIX_KSM_APPEND_FIRST in k.patches:
                node = stable_tree_insert(k, page)
                if node is not None:
                    get_anon_vma_for(item, vma)
                    stable_tree_append(item, node)
                    err = 0
            else:
                page.mapping = NO_STABLE_NODE  # rmap walks find nothing until it has a node
                err = 0
            if not err:
                swap.mark_page_accessed(k, page)
        elif same_content(page, kpage):
            err = replace_page(k, vma, page, kpage, orig_pte)
    if vma.vm_flags & VM_LOCKED and kpage is not None and not err:
        mlock.munlock_vma_page(k, page)
        if not PageMlocked(kpage):
            unlock_page(page)
            lock_page(kpage)
            mlock_kpage(k, vma, item.address, kpage)
            page = kpage
    unlock_page(page)
    return err


def mlock_kpage(k: Kernel, vma: VmAreaStruct, address: int, kpage: Page) -> None:
    """Mark a KSM page that has just been mapped in a VM_LOCKED vma.

    Source:   mm/ksm.c try_to_merge_one_page(), v4.3.          Patches: fix:ksm-mlock-ptl.
    Context:  mmap_sem held for read, kpage locked. The ptl is not held: a write may have broken
              COW, and munlocked kpage, since the pte was set (X4).
    """
    if FIX_KSM_MLOCK_PTL in k.patches:
        pte = rmap.page_check_address(k, kpage, vma, address, sync=True)
        if pte is not None:
            mlock.mlock_vma_page(k, kpage)
            spin_unlock(pte.lock)
    else:
        mlock.mlock_vma_page(k, kpage)


def try_to_merge_with_ksm_page(k: Kernel, item: RmapItem, page: Page, kpage: Page | None) -> int:
    """Merge the page at a place, if the vma is still there.

    Source:   mm/ksm.c try_to_merge_with_ksm_page(), v4.3.
                                               Patches: fix:ksm-append-first, fix:ksm-mergeable-vma.
    Context:  takes mmap_sem for read. The place has a reference on its anon_vma afterwards. Until
              the caller appends it to the stable tree, rmap walks do not find the new pte.
    Returns:  0 or -EFAULT.
    """
    mm = item.mm
    down_read(mm.mmap_sem)
    err = EFAULT
    if FIX_KSM_MERGEABLE_VMA in k.patches:
        vma = find_mergeable_vma(mm, item.address)
    else:
        vma = None if ksm_test_exit(mm) else mmap.find_vma(mm, item.address)
    if vma is not None and vma.vm_start <= item.address:
        if FIX_KSM_APPEND_FIRST in k.patches:
            remove_rmap_item_from_tree(k, item)
            if kpage is not None and vma.anon_vma is not None:
                lock_page(kpage)
                node = page_stable_node(kpage)
                if node is not None:
                    get_anon_vma_for(item, vma)
                    stable_tree_append(item, node)
                unlock_page(kpage)
            err = try_to_merge_one_page(k, vma, item, page, kpage)
            if err:
                remove_rmap_item_from_tree(k, item)
        else:
            err = try_to_merge_one_page(k, vma, item, page, kpage)
            if not err:
                remove_rmap_item_from_tree(k, item)
                get_anon_vma_for(item, vma)
    up_read(mm.mmap_sem)
    return err


def get_anon_vma_for(item: RmapItem, vma: VmAreaStruct) -> None:
    """The place takes a reference on its vma's anon_vma.

    Source:   mm/ksm.c try_to_merge_with_ksm_page(), v4.3.     Context: mmap_sem held.
    Bugs:     oops: the vma has no anon_vma.
    """
    anon_vma = vma.anon_vma
    if anon_vma is None:
        BUG("bug-ksm-null-anon-vma", "get_anon_vma() of a vma without one")
        return
    item.anon_vma = anon_vma
    rmap.get_anon_vma(anon_vma)


def stable_tree_search(k: Kernel, page: Page) -> Page | None:
    """The KSM page that holds the same as `page`, with a reference.

    Source:   mm/ksm.c stable_tree_search(), v4.3.
    Context:  ksm_thread_mutex.
    Left out: one tree a node (merge_across_nodes is on).
    """
    if page_stable_node(page) is not None:
        get_page(page)
        return page
    node, _ = find_in_stable_tree(k, page)
    if node is None:
        return None
    # Locked for a moment: a migration of it will notice the reference.
    tree_page = get_ksm_page(k, node, True)
    if tree_page is not None:
        unlock_page(tree_page)
    return tree_page


def find_in_stable_tree(k: Kernel, page: Page) -> tuple[StableNode | None, bool]:
    """The node whose page holds the same as `page`; and was the whole tree looked through.

    Source:   mm/ksm.c stable_tree_search(), stable_tree_insert(), v4.3.
                                               Patches: fix:ksm-stale-node.
    Context:  ksm_thread_mutex. A stale node on the way is removed, and ends the search; with the
              patch it begins again.
    """
    tree = ksm_globals(k).stable_tree
    at = 0
    while at < len(tree):
        node = tree[at]
        tree_page = get_ksm_page(k, node, False)
        if tree_page is None:
            if FIX_KSM_STALE_NODE not in k.patches:
                return None, False
            at = 0
            continue
        same = same_content(page, tree_page)
        swap.put_page(k, tree_page)
        if same:
            return node, True
        at += 1
    return None, True


def stable_tree_insert(k: Kernel, kpage: Page) -> StableNode | None:
    """Make a node for a new KSM page.

    Source:   mm/ksm.c stable_tree_insert(), v4.3.
    Context:  kpage locked.
    Returns:  None where another KSM page holds the same, or a stale node ended the search.
    """
    same, searched = find_in_stable_tree(k, kpage)
    if same is not None or not searched:
        return None
    node = StableNode(k.machine, kpage)
    kpage.mapping = node
    ksm_globals(k).stable_tree.append(node)
    return node


def stable_tree_append(item: RmapItem, node: StableNode) -> None:
    """From here on rmap walks find the place. Source: mm/ksm.c stable_tree_append(), v4.3."""
    item.node = node
    node.items.insert(0, item)


def try_to_merge_two_pages(
    k: Kernel, item: RmapItem, page: Page, tree_item: RmapItem, tree_page: Page
) -> Page | None:
    """Make a KSM page of `page`, and put it in the place of tree_page.

    Source:   mm/ksm.c try_to_merge_two_pages(), v4.3.
    Returns:  the KSM page, or None.
    """
    if try_to_merge_with_ksm_page(k, item, page, None):
        return None
    if try_to_merge_with_ksm_page(k, tree_item, tree_page, page):
        break_cow(k, item)
        return None
    return page


def cmp_and_merge_page(k: Kernel, page: Page, item: RmapItem, tree_item: RmapItem) -> int:
    """Merge the page at a place with a KSM page that holds the same, or with one other page.

    Source:   mm/ksm.c cmp_and_merge_page(), unstable_tree_search_insert(), v4.3.
                                               Patches: fix:ksm-append-first.
    Context:  ksm_thread_mutex; `page` with a reference of the caller's.
    Args:     tree_item: what the unstable tree has; it may hold something else by now.
    Returns:  0: merged; -EAGAIN: not.
    Left out: the checksum: every page has kept still for long enough.
    """
    node = page_stable_node(page)
    if node is not None and item.node is node:
        return 0
    kpage = stable_tree_search(k, page)
    remove_rmap_item_from_tree(k, item)
    if kpage is not None:
        err = try_to_merge_with_ksm_page(k, item, page, kpage)
        if not err and item.node is None:
            lock_page(kpage)
            node = page_stable_node(kpage)
            assert node is not None
            stable_tree_append(item, node)
            unlock_page(kpage)
        swap.put_page(k, kpage)
        return EAGAIN if err else 0
    tree_page = get_mergeable_page(k, tree_item)
    if tree_page is None:
        return EAGAIN
    if page is tree_page or not same_content(page, tree_page):
        swap.put_page(k, tree_page)
        return EAGAIN
    remove_rmap_item_from_tree(k, tree_item)
    kpage = try_to_merge_two_pages(k, item, page, tree_item, tree_page)
    swap.put_page(k, tree_page)
    if kpage is None:
        return EAGAIN
    if FIX_KSM_APPEND_FIRST in k.patches:
        return 0
    lock_page(kpage)
    node = stable_tree_insert(k, kpage)
    if node is not None:
        stable_tree_append(tree_item, node)
        stable_tree_append(item, node)
    unlock_page(kpage)
    if node is None:
        break_cow(k, tree_item)
        break_cow(k, item)
        return EAGAIN
    return 0


def ksm_do_scan(
    k: Kernel, mm: MmStruct, address: int, other_mm: MmStruct, other_address: int
) -> int:
    """ksmd comes by one place, with another in its unstable tree.

    Source:   mm/ksm.c ksm_do_scan(), v4.3.   Context: process context; takes ksm_thread_mutex.
    Returns:  0; -ENOENT: no anonymous page there that may be merged; -EAGAIN: not merged.
    """
    ksm = ksm_globals(k)
    mutex_lock(ksm.mutex)
    ret = ENOENT
    item = get_rmap_item(k, mm, address)
    page = get_mergeable_page(k, item)
    if page is not None:
        ret = cmp_and_merge_page(k, page, item, get_rmap_item(k, other_mm, other_address))
        swap.put_page(k, page)
    mutex_unlock(ksm.mutex)
    return ret


def ksm_madvise(
    k: Kernel, vma: VmAreaStruct, start: int, end: int, on: bool, vm_flags: int
) -> tuple[int, int]:
    """What vm_flags become by MADV_MERGEABLE or MADV_UNMERGEABLE; the latter breaks what is merged.

    Source:   mm/ksm.c ksm_madvise(), unmerge_ksm_pages(), v4.3.   Patches: fix:ksm-no-file.
    Context:  mmap_sem held for write.        Returns: (0 or -ENOMEM, vm_flags).
    """
    if on:
        if vm_flags & (VM_MERGEABLE | VM_SHARED | VM_SPECIAL | VM_HUGETLB):
            return 0, vm_flags
        if FIX_KSM_NO_FILE in k.patches:
            if vma.vm_file is not None:
                return 0, vm_flags
        vma.vm_mm.mergeable = True
        return 0, vm_flags | VM_MERGEABLE
    if not vm_flags & VM_MERGEABLE:
        return 0, vm_flags
    if vma.anon_vma is not None:
        for address in range(start, end):
            if ksm_test_exit(vma.vm_mm):
                break
            err = break_ksm(k, vma, address)
            if err:
                return err, vm_flags
    return 0, vm_flags & ~VM_MERGEABLE


def ksm_might_need_to_copy(k: Kernel, page: Page, vma: VmAreaStruct, address: int) -> Page | None:
    """A page swapped in may have been a KSM page: can this vma map it, or must it have a copy?

    Source:   mm/ksm.c ksm_might_need_to_copy(), v4.3.
    Context:  page locked, in the swap cache; a copy is locked too.
    Returns:  the page, its copy, or None: no memory.
    """
    look(page, "mapping")
    mapping = page._mapping  # keeps still: the page is locked and unmapped, or mapped already
    if isinstance(mapping, StableNode):
        if mapping is not NO_STABLE_NODE:
            return page
    elif not isinstance(mapping, AnonVma) or vma.anon_vma is None:
        return page
    elif mapping.root is vma.anon_vma.root:
        if page._index == memory.linear_page_index(vma, address):
            return page
    if not PageUptodate(page):
        return page
    new_page = page_alloc.alloc_page(k)
    if new_page is not None:
        memory.copy_user_highpage(k, new_page, page)
        SetPageDirty(new_page)
        SetPageUptodate(new_page)
        set_page_locked(new_page)
    return new_page


def rmap_walk_ksm(
    page: Page,
    node: StableNode,
    rmap_one: Callable[[VmAreaStruct, int], int],
    done: Callable[[Page], bool] | None,
) -> int:
    """Visit every vma that may map a KSM page: first those that ksmd saw, then their forks.

    Source:   mm/ksm.c rmap_walk_ksm(), v4.3.
    Context:  page locked; takes each anon_vma's rwsem for read.
    Bugs:     VM_BUG: page not locked.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-rmap-walk-ksm-unlocked", "!PageLocked(page)")
    ret = SWAP_AGAIN
    for search_new_forks in (False, True):
        for item in node.items:
            anon_vma = item.anon_vma
            assert anon_vma is not None
            down_read(anon_vma.rwsem)
            for vma in anon_vma.vmas:
                if not vma.vm_start <= item.address < vma.vm_end:
                    continue
                if (item.mm is vma.vm_mm) == search_new_forks:
                    continue
                ret = rmap_one(vma, item.address)
                if ret != SWAP_AGAIN or (done is not None and done(page)):
                    up_read(anon_vma.rwsem)
                    return ret
            up_read(anon_vma.rwsem)
    return ret


def ksm_migrate_page(newpage: Page, oldpage: Page) -> None:
    """The node follows its page.

    Source:   mm/ksm.c ksm_migrate_page(), v4.3.
    Context:  both pages locked. No step but for a KSM page.
    Bugs:     VM_BUG: a page is not locked; the mappings differ; the node is of another page.
    """
    look(newpage, "mapping")
    look(oldpage, "mapping")
    node = newpage._mapping
    if not isinstance(node, StableNode) and not isinstance(oldpage._mapping, StableNode):
        return
    VM_BUG_ON_PAGE(
        not peek(oldpage, PG_locked) & peek(newpage, PG_locked),
        "vm-bug-ksm-migrate-unlocked",
        "!PageLocked(oldpage) || !PageLocked(newpage)",
    )
    VM_BUG_ON_PAGE(
        newpage.mapping is not oldpage.mapping,
        "vm-bug-ksm-migrate-mapping",
        "newpage->mapping != oldpage->mapping",
    )
    if isinstance(node, StableNode) and node is not NO_STABLE_NODE:
        VM_BUG_ON_PAGE(
            node.kpage is not oldpage,
            "vm-bug-ksm-migrate-kpfn",
            "stable_node->kpfn != page_to_pfn(oldpage)",
        )
        node.kpage = newpage
        oldpage.mapping = NO_STABLE_NODE
