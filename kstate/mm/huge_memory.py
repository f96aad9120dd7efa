"""mm/huge_memory.c: transparent huge pages, each as one unit of HPAGE_PMD_NR pages.

In a mapping that wants huge pages a page number stands for a huge page, and its pte for a pmd; a
unit that was split is one small page from then on, as if its tails had never been. See MODEL.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from kstate.flags import (
    ENOENT,
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    NR_ANON_PAGES,
    NR_MLOCK,
    VM_FAULT_WRITE,
    VM_LOCKED,
    VM_WRITE,
    PG_mlocked,
    PG_swapbacked,
)
from kstate.machine import (
    down_read,
    down_write,
    look,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
    touch,
    up_read,
    up_write,
)
from kstate.mm import memcontrol, memory, migrate, mlock, mmap, rmap, swap
from kstate.mm.debug import BUG_ON
from kstate.pageflags import (
    SetPageUptodate,
    get_page,
    lock_page,
    page_mapcount,
    peek,
    trylock_page,
    unlock_page,
)
from kstate.patches import FIX_THP_COW_MUNLOCK
from kstate.structs import (
    ANON,
    NONE,
    PRESENT,
    Kernel,
    MmStruct,
    Page,
    Pte,
    PteVal,
    Thp,
    VmAreaStruct,
    pte_mkdirty,
    pte_same,
    pte_with,
    ptep_get_and_clear,
    set_pte_at,
    take_free_huge_page,
)


def alloc_hugepage(k: Kernel, node: int) -> Page | None:
    """A huge page of `node` and no other, with one reference.

    Source:   mm/huge_memory.c alloc_hugepage_vma(); mm/mempolicy.c alloc_pages_vma(), v4.3.
    Returns:  None where there is none, or by an injected fault `alloc_hugepage`.
    Left out: compaction on the way.
    """
    if k.thp is None:
        k.thp = Thp(k)
    if k.machine.fault("alloc_hugepage"):
        return None
    return take_free_huge_page(k, k.thp, k.zones[node])


def do_huge_pmd_anonymous_page(
    k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int
) -> int:
    """First touch of memory that wants huge pages.

    Source:   mm/huge_memory.c do_huge_pmd_anonymous_page(), v4.3, with use_zero_page off.
    Context:  mmap_sem held for read; takes the ptl.
    Returns:  VM_FAULT_* bits; as do_anonymous_page where there is no huge page to be had.
    """
    rmap.anon_vma_prepare(vma)
    page = alloc_hugepage(k, 0)
    if page is None:
        return _fall_back(k, vma, address, pte, flags)
    error, memcg = memcontrol.mem_cgroup_try_charge(k, page, vma.vm_mm)
    if error:
        swap.put_page(k, page)
        return _fall_back(k, vma, address, pte, flags)
    SetPageUptodate(page)
    spin_lock(pte.lock)
    if pte.value.kind != NONE or pte.has_table:
        spin_unlock(pte.lock)
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap.put_page(k, page)
        return 0
    writable = bool(vma.vm_flags & VM_WRITE)
    entry = pte_mkdirty(PteVal(PRESENT, page, write=writable, young=True))
    rmap.page_add_new_anon_rmap(page, vma, address)
    memcontrol.mem_cgroup_commit_charge(page, memcg)
    swap.lru_cache_add_active_or_unevictable(k, page, vma)
    set_pte_at(pte, entry)
    vma.vm_mm.rss[MM_ANONPAGES] += page.nr_pages
    spin_unlock(pte.lock)
    return 0


def _fall_back(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int) -> int:
    """A page table takes the pmd's place, for good, and a small page is mapped.

    Source:   mm/memory.c __handle_mm_fault(), v4.3."""
    touch(pte, "pte")
    if pte._value.kind == PRESENT and pte._value.page is not None and pte._value.page.nr_pages > 1:
        return 0  # somebody else's huge page was faster
    pte.has_table = True
    return memory.do_anonymous_page(k, vma, address, pte, flags)


def huge_pmd_fault(
    k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int, orig: PteVal
) -> int:
    """Fault on a pmd that maps a huge page.

    Source:   mm/memory.c __handle_mm_fault(); mm/huge_memory.c huge_pmd_set_accessed(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    """
    if flags & FAULT_FLAG_WRITE and not orig.write:
        return do_huge_pmd_wp_page(k, vma, address, pte, orig)
    spin_lock(pte.lock)
    if pte_same(pte.value, orig):
        # x86's pmdp_set_access_flags() stores for a write only.
        changed = pte_with(orig, young=True)
        if flags & FAULT_FLAG_WRITE and not pte_same(orig, changed):
            set_pte_at(pte, changed)
    spin_unlock(pte.lock)
    return 0


def do_huge_pmd_wp_page(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, orig: PteVal) -> int:
    """Write to a huge page that is mapped read-only: ours alone, or copy it.

    Source:   mm/huge_memory.c do_huge_pmd_wp_page(), v4.3.    Patches: fix:thp-cow-munlock.
    Context:  mmap_sem held for read; takes the ptl, and no page lock.
    Left out: where no huge page is to be had the old one is split; the kernel first tries to copy
              into small pages.
    """
    page = orig.page
    assert page is not None
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig) or page.nr_pages == 1:
        spin_unlock(pte.lock)
        return 0
    writable = bool(vma.vm_flags & VM_WRITE)
    if page_mapcount(page) == 1:
        set_pte_at(pte, pte_mkdirty(pte_with(orig, write=writable, young=True)))
        spin_unlock(pte.lock)
        return VM_FAULT_WRITE
    get_page(page)
    spin_unlock(pte.lock)
    new_page = alloc_hugepage(k, 0)
    if new_page is None:
        split_huge_page(k, page)
        swap.put_page(k, page)
        return 0
    error, memcg = memcontrol.mem_cgroup_try_charge(k, new_page, vma.vm_mm)
    if error:
        swap.put_page(k, new_page)
        split_huge_page(k, page)
        swap.put_page(k, page)
        return 0
    memory.copy_user_highpage(k, new_page, page)
    SetPageUptodate(new_page)
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig) or page.nr_pages == 1:
        spin_unlock(pte.lock)
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap.put_page(k, page)
        swap.put_page(k, new_page)
        return 0
    ptep_get_and_clear(pte)
    rmap.page_add_new_anon_rmap(new_page, vma, address)
    memcontrol.mem_cgroup_commit_charge(new_page, memcg)
    swap.lru_cache_add_active_or_unevictable(k, new_page, vma)
    set_pte_at(pte, pte_mkdirty(PteVal(PRESENT, new_page, write=writable, young=True)))
    rmap.page_remove_rmap(k, page)
    swap.put_page(k, page)
    spin_unlock(pte.lock)
    if FIX_THP_COW_MUNLOCK in k.patches:
        if vma.vm_flags & VM_LOCKED:
            lock_page(page)
            mlock.munlock_vma_page(k, page)
            unlock_page(page)
    swap.put_page(k, page)
    return VM_FAULT_WRITE


def page_check_address_pmd(k: Kernel, page: Page, vma: VmAreaStruct, address: int) -> Pte | None:
    """The pmd that maps a huge page at an address, with the ptl held; None where it does not.

    Source:   mm/huge_memory.c page_check_address_pmd(), v4.3.
    Context:  takes the ptl where it returns a pmd, without a peek first.
    """
    pte = memory.pte_offset(vma.vm_mm, address)
    spin_lock(pte.lock)
    value = pte.value
    if value.kind == PRESENT and value.page is page:
        return pte
    spin_unlock(pte.lock)
    return None


def _check_address_pmd_once(
    k: Kernel, page: Page, vma: VmAreaStruct, address: int, mapped: Sequence[Pte]
) -> Pte | None:
    """page_check_address_pmd() where ptls of the pmds found before are still held. A pmd that was
    found does not count twice: it would be marked as splitting."""
    pte = memory.pte_offset(vma.vm_mm, address)
    if all(pte.lock is not held.lock for held in mapped):
        return page_check_address_pmd(k, page, vma, address)
    if pte in mapped:
        return None
    value = pte.value
    return pte if value.kind == PRESENT and value.page is page else None


def split_failed(k: Kernel, page: Page) -> bool:
    """Is it a huge page that will not be split? No step for a small page.

    Source:   mm/migrate.c unmap_and_move(), v4.3.
    """
    return page.nr_pages > 1 and split_huge_page(k, page) != 0


def split_huge_page(k: Kernel, page: Page) -> int:
    """Make small pages of a huge one.

    Source:   mm/huge_memory.c split_huge_page_to_list(), __split_huge_page(), v4.3.
    Context:  a reference held; takes the anon_vma's rwsem for write, each ptl, lru_lock. The page
              lock is not needed.
    Returns:  0; 1: it is not mapped any more, or an injected fault `split_huge_page`.
    Bugs:     BUG: not anonymous; not swap-backed; mapcount is not the number of pmds.
    Left out: tails. All ptls are held at once; in the kernel a pmd that is being split makes
              everybody wait instead. Two vmas of one mm may be found: its ptl is taken once.
    """
    look(page, "mapping")
    BUG_ON(not isinstance(page._mapping, ANON), "bug-split-huge-page-anon", "!PageAnon(page)")
    if k.machine.fault("split_huge_page"):
        return 1
    anon_vma = rmap.page_get_anon_vma(k, page)
    if anon_vma is None:
        return 1
    down_write(anon_vma.rwsem)
    if page.nr_pages > 1:
        BUG_ON(
            not peek(page, PG_swapbacked),
            "bug-split-huge-page-backed",
            "!PageSwapBacked(page)",
        )
        mapped: list[Pte] = []
        for vma in _children_first(anon_vma.vmas):
            address = vma.vm_start + page._index - vma.vm_pgoff
            if vma.vm_start <= address < vma.vm_end:
                pte = _check_address_pmd_once(k, page, vma, address, mapped)
                if pte is not None:
                    mapped.append(pte)
        BUG_ON(
            page_mapcount(page) != len(mapped),
            "bug-split-huge-page-mapcount",
            "mapcount != mapcount2",
        )
        zone = page.zone
        spin_lock_irq(zone.lru_lock)
        tails = page.nr_pages - 1
        page.nr_pages = 1
        if mapped:
            zone.stat[NR_ANON_PAGES] -= tails
        if peek(page, PG_mlocked):
            zone.stat[NR_MLOCK] -= tails
        for pte in mapped:
            pte.mm.rss[MM_ANONPAGES] -= tails
        spin_unlock_irq(zone.lru_lock)
        for pte in mapped:
            set_pte_at(pte, pte_mkdirty(pte._value))  # as every pte of the page table is made
            pte.has_table = True
        for lock in reversed(dict.fromkeys(pte.lock for pte in mapped)):
            spin_unlock(lock)
    up_write(anon_vma.rwsem)
    rmap.put_anon_vma(anon_vma)
    return 0


def _children_first(vmas: list[VmAreaStruct]) -> list[VmAreaStruct]:
    """As fork takes the ptls. Of one mm in walking order: mremap's copy comes after the original,
    where a huge page that is moved meanwhile is found."""
    mms = dict.fromkeys(vma.vm_mm for vma in vmas)
    return [vma for mm in reversed(mms) for vma in vmas if vma.vm_mm is mm]


def split_huge_page_pmd(k: Kernel, vma: VmAreaStruct, address: int) -> None:
    """Split the huge page that is mapped at an address, if there is one.

    Source:   mm/huge_memory.c __split_huge_page_pmd(), v4.3.
    Context:  mmap_sem held; takes the ptl.
    Left out: trying again where another huge page has come there meanwhile.
    """
    value = memory.pte_offset(vma.vm_mm, address)._value
    if value.kind != PRESENT or value.page is None or value.page.nr_pages == 1:
        return  # as pmd_trans_huge(), a look at the page table without a lock
    pte = memory.pte_offset(vma.vm_mm, address)
    spin_lock(pte.lock)
    value = pte.value
    page = value.page
    if value.kind != PRESENT or page is None or page.nr_pages == 1:
        spin_unlock(pte.lock)
        return
    get_page(page)
    spin_unlock(pte.lock)
    split_huge_page(k, page)
    swap.put_page(k, page)


def do_huge_pmd_numa_page(k: Kernel, mm: MmStruct, address: int, node: int) -> int:
    """A NUMA hinting fault on a huge page that would be better off on another node.

    Source:   mm/huge_memory.c do_huge_pmd_numa_page(); mm/mprotect.c change_prot_numa(), v4.3.
    Context:  takes mmap_sem for read, the page lock, the anon_vma's rwsem for read.
    Returns:  0: migrated; 1: not; -ENOENT: no huge page there.
    Left out: policies. The hint is given and taken here; a pmd with a hint is read-only, where the
              kernel's cannot be read either.
    """
    down_read(mm.mmap_sem)
    vma = mmap.find_vma(mm, address)
    pte = memory.pte_offset(mm, address)
    spin_lock(pte.lock)
    value = pte.value
    page = value.page
    if (
        vma is None
        or address < vma.vm_start
        or value.kind != PRESENT
        or page is None
        or page.nr_pages == 1
        or page.zone.node == node
    ):
        spin_unlock(pte.lock)
        up_read(mm.mmap_sem)
        return ENOENT
    was_writable = value.write
    entry = pte_with(value, write=False, young=True)
    set_pte_at(pte, entry)
    if not trylock_page(page):
        spin_unlock(pte.lock)
        up_read(mm.mmap_sem)
        return 1
    get_page(page)
    spin_unlock(pte.lock)
    anon_vma = rmap.page_lock_anon_vma_read(k, page)
    spin_lock(pte.lock)
    if not pte_same(pte.value, entry) or page.nr_pages == 1 or anon_vma is None:
        if pte_same(pte._value, entry) and anon_vma is None:
            set_pte_at(pte, pte_with(entry, write=was_writable))
        spin_unlock(pte.lock)
        unlock_page(page)
        swap.put_page(k, page)
        migrated = False
    else:
        spin_unlock(pte.lock)
        migrated = migrate.migrate_misplaced_transhuge_page(k, vma, pte, entry, address, page, node)
    if anon_vma is not None:
        up_read(anon_vma.rwsem)
    up_read(mm.mmap_sem)
    return 0 if migrated else 1
