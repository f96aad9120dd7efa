"""mm/memcontrol.c: which group pays for a page, and what each group's pages are doing."""

from __future__ import annotations

from kstate.flags import (
    EBUSY,
    EINVAL,
    ENOMEM,
    MEM_CGROUP_STAT_CACHE,
    MEM_CGROUP_STAT_DIRTY,
    MEM_CGROUP_STAT_FILE_MAPPED,
    MEM_CGROUP_STAT_RSS,
    MEM_CGROUP_STAT_WRITEBACK,
    NR_LRU_LISTS,
    PG_locked,
    PG_lru,
    PG_swapcache,
)
from kstate.machine import (
    down_read,
    look,
    mutex_lock,
    mutex_unlock,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
    synchronize_rcu,
    up_read,
)
from kstate.mm import filemap, memory, swap, util, vmscan
from kstate.mm.debug import VM_BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageLRU,
    PageAnon,
    PageDirty,
    PageLRU,
    PageWriteback,
    SetPageLRU,
    get_page_unless_zero,
    page_mapped,
    peek,
    trylock_page,
    unlock_page,
)
from kstate.patches import FIX_MEMCG_MOVE_END, MUT_4_LRUCARE, P04
from kstate.structs import (
    ANON,
    MEMCGS_COUNT,
    NONE,
    PRESENT,
    SWAP,
    Kernel,
    MemCgroup,
    MmStruct,
    Page,
    Pte,
    VmAreaStruct,
    Zone,
    atomic_add_moving_account,
)


def mem_cgroup_update_lru_size(page: Page, zone: Zone, lru: int, number: int) -> None:
    """Count a page that joins or leaves a list, for the group it is charged to now.

    Source:   mm/memcontrol.c mem_cgroup_update_lru_size(), mem_cgroup_page_lruvec(), v4.3.
    Context:  lru_lock held. A page charged to nobody is on the root group's list. No step.
    Bugs:     VM_BUG: a list with fewer than no pages.
    """
    look(page, "mem_cgroup")
    memcg = page._mem_cgroup
    if memcg is not None:
        lru += memcg.number * NR_LRU_LISTS
    zone.lru_size[lru] += number
    VM_BUG_ON(zone.lru_size[lru] < 0, "vm-bug-lru-size", "(long)(*lru_size) < 0")


def mem_cgroup_begin_page_stat(page: Page) -> MemCgroup | None:
    """Keep the page's group what it is until mem_cgroup_end_page_stat.

    Source:   mm/memcontrol.c mem_cgroup_begin_page_stat(), v4.3.
    Context:  any; RCU read section until the end, and move_lock while charges are moved away.
    Returns:  the group; None where the page is charged to nobody.
    """
    machine = page.machine
    task = machine.current
    task.rcu_sections += task.rcu_depth == 0
    task.rcu_depth += 1  # no step of its own: nobody can tell it from a moment earlier
    look(machine, "rcu")
    while True:
        memcg = page.mem_cgroup
        if memcg is None or memcg.moving_account <= 0:
            return memcg
        spin_lock_irq(memcg.move_lock)
        if page.mem_cgroup is memcg:
            memcg.move_lock_task = task
            return memcg
        spin_unlock_irq(memcg.move_lock)


def mem_cgroup_end_page_stat(page: Page, memcg: MemCgroup | None) -> None:
    """The page's state and its count agree again.

    Source:   mm/memcontrol.c mem_cgroup_end_page_stat(), v4.3.
    Args:     page: names the machine; memcg: what mem_cgroup_begin_page_stat returned.
    """
    machine = page.machine
    task = machine.current
    if memcg is not None and memcg.move_lock_task is task:
        memcg.move_lock_task = None
        spin_unlock_irq(memcg.move_lock)
    task.rcu_depth -= 1
    look(machine, "rcu")
    if machine.wakes:
        machine.woke()


def mem_cgroup_update_page_stat(memcg: MemCgroup | None, counter: int, number: int) -> None:
    """Count a change of page state. Source: include/linux/memcontrol.h, v4.3. No step.

    Context:  between mem_cgroup_begin_page_stat and mem_cgroup_end_page_stat."""
    if memcg is not None:
        memcg.stat[counter] += number


def mem_cgroup_try_charge(
    k: Kernel, page: Page, mm: MmStruct | None
) -> tuple[int, MemCgroup | None]:
    """Reserve a page's charge in the group of a process.

    Source:   mm/memcontrol.c mem_cgroup_try_charge(), get_mem_cgroup_from_mm(), v4.3.
    Context:  sleeps in the kernel; a page in the swap cache is locked.
    Args:     mm: None: the root group's, which charges nobody here.
    Returns:  (0, group to commit or cancel, or None: it is charged already), or (-ENOMEM, None) by
              an injected fault `try_charge`: the group is at its limit.
    Bugs:     VM_BUG: in the swap cache and not locked.
    Left out: limits and reclaim for them, swap accounting (swapaccount=0).
    """
    if peek(page, PG_swapcache):
        VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-try-charge-locked", "!PageLocked(page)")
        if page.mem_cgroup is not None:
            return 0, None
    memcg = None if mm is None else mm.memcg
    if memcg is None:
        return 0, None
    if k.machine.fault("try_charge"):
        return ENOMEM, None
    memcg.memory += 1
    return 0, memcg


def current_mm(k: Kernel) -> MmStruct | None:
    """Whose pages this task asks for. Source: include/asm-generic/current.h, current->mm."""
    return k.current_mms.get(k.machine.current.index)


def mem_cgroup_cancel_charge(memcg: MemCgroup | None) -> None:
    """The page was not needed. Source: mm/memcontrol.c mem_cgroup_cancel_charge(), v4.3."""
    if memcg is not None:
        memcg.memory -= 1


def mem_cgroup_commit_charge(page: Page, memcg: MemCgroup | None, *, lrucare: bool = False) -> None:
    """Charge a page to the group that has reserved for it.

    Source:   mm/memcontrol.c mem_cgroup_commit_charge(), v4.3.
    Context:  the page is new, or locked.
    Args:     memcg: None: charged already. lrucare: it may be on a list.
    Bugs:     VM_BUG: no mapping yet; on the LRU without lrucare.
    """
    look(page, "mapping")
    VM_BUG_ON_PAGE(page._mapping is None, "vm-bug-commit-charge-mapping", "!page->mapping")
    VM_BUG_ON_PAGE(
        peek(page, PG_lru) != 0 and not lrucare,
        "vm-bug-commit-charge-lru",
        "PageLRU(page) && !lrucare",
    )
    if memcg is None:
        return
    commit_charge(page, memcg, lrucare)
    mem_cgroup_charge_statistics(memcg, page, 1)


def commit_charge(page: Page, memcg: MemCgroup, lrucare: bool) -> None:
    """Write the group into the page, off its list if it is on one.

    Source:   mm/memcontrol.c commit_charge(), v4.3.
    Context:  takes lru_lock with lrucare.     Bugs: VM_BUG: charged already.
    """
    look(page, "mem_cgroup")
    VM_BUG_ON_PAGE(page._mem_cgroup is not None, "vm-bug-commit-charge-twice", "page->mem_cgroup")
    isolated = lock_page_lru(page) if lrucare else False
    page.mem_cgroup = memcg
    if lrucare:
        unlock_page_lru(page, isolated)


def lock_page_lru(page: Page) -> bool:
    """Take a page off its list, and keep lru_lock. Source: mm/memcontrol.c lock_page_lru(), v4.3.

    Returns: was it on one.
    """
    zone = page.zone
    spin_lock_irq(zone.lru_lock)
    if not PageLRU(page):
        return False
    ClearPageLRU(page)
    swap.del_page_from_lru_list(page, zone, swap.page_lru(page))
    return True


def unlock_page_lru(page: Page, isolated: bool) -> None:
    """Put it on its list again, the one of the group that it has now.

    Source:   mm/memcontrol.c unlock_page_lru(), v4.3.        Context: lru_lock held, dropped.
    Bugs:     VM_BUG: on the LRU.
    """
    zone = page.zone
    if isolated:
        VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-unlock-page-lru", "PageLRU(page)")
        SetPageLRU(page)
        swap.add_page_to_lru_list(page, zone, swap.page_lru(page))
    spin_unlock_irq(zone.lru_lock)


def mem_cgroup_charge_statistics(memcg: MemCgroup, page: Page, number: int) -> None:
    """RSS or CACHE: tmpfs is CACHE, whatever list it is on. No step.

    Source:   mm/memcontrol.c mem_cgroup_charge_statistics(), v4.3."""
    look(page, "mapping")
    anon = isinstance(page._mapping, ANON)
    memcg.stat[MEM_CGROUP_STAT_RSS if anon else MEM_CGROUP_STAT_CACHE] += number


def mem_cgroup_uncharge(page: Page) -> None:
    """Nobody has the page any more: give its charge back.

    Source:   mm/memcontrol.c mem_cgroup_uncharge(), uncharge_list(), uncharge_batch(), v4.3.
    Context:  refcount 0: nobody else looks.   Bugs: VM_BUG: on the LRU; it has references.
    """
    look(page, "mem_cgroup")
    memcg = page._mem_cgroup
    if memcg is None:
        return
    VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-uncharge-lru", "PageLRU(page)")
    look(page, "refcount")
    VM_BUG_ON_PAGE(page._refcount != 0, "vm-bug-uncharge-count", "page_count(page)")
    mem_cgroup_charge_statistics(memcg, page, -1)
    memcg.memory -= 1
    page.mem_cgroup = None


def mem_cgroup_replace_page(k: Kernel, oldpage: Page, newpage: Page, lrucare: bool = True) -> None:
    """newpage takes over oldpage's charge; what is counted stays the same.

    Source:   mm/memcontrol.c mem_cgroup_migrate(), v4.3; mem_cgroup_replace_page(), v4.4.
    Context:  both pages locked; takes lru_lock with lrucare, twice.
                                               Patches: P04, mutant:4-lrucare.
    Args:     lrucare: either may be on a list. Always, with P04.
    Bugs:     VM_BUG: not locked; one anonymous or huge and the other not; without P04: on the LRU
              without lrucare.
    """
    VM_BUG_ON_PAGE(
        not peek(oldpage, PG_locked) & peek(newpage, PG_locked),
        "vm-bug-replace-page-unlocked",
        "!PageLocked(page)",
    )
    if P04 in k.patches:
        lrucare = True
        if MUT_4_LRUCARE in k.patches:
            lrucare = False
    else:
        VM_BUG_ON_PAGE(
            not lrucare and peek(oldpage, PG_lru) | peek(newpage, PG_lru) != 0,
            "vm-bug-migrate-charge-lru",
            "!lrucare && PageLRU(page)",
        )
    VM_BUG_ON_PAGE(
        isinstance(oldpage._mapping, ANON) != isinstance(newpage._mapping, ANON),
        "vm-bug-replace-page-anon",
        "PageAnon(oldpage) != PageAnon(newpage)",
    )
    VM_BUG_ON_PAGE(
        (oldpage.nr_pages > 1) != (newpage.nr_pages > 1),
        "vm-bug-replace-page-huge",
        "PageTransHuge(oldpage) != PageTransHuge(newpage)",
    )
    if newpage.mem_cgroup is not None:
        return
    memcg = oldpage.mem_cgroup
    if memcg is None:
        return
    isolated = lock_page_lru(oldpage) if lrucare else False
    oldpage.mem_cgroup = None
    if lrucare:
        unlock_page_lru(oldpage, isolated)
    commit_charge(newpage, memcg, lrucare)


def mem_cgroup_move_account(k: Kernel, page: Page, old: MemCgroup, new: MemCgroup) -> int:
    """Charge a page to another group.

    Source:   mm/memcontrol.c mem_cgroup_move_account(), v4.3.
    Context:  the page isolated, the ptl held; takes the page lock by trylock, and move_lock.
    Returns:  0; -EBUSY: locked; -EINVAL: charged to another group by now.
    Bugs:     VM_BUG: one group; on the LRU.
    """
    VM_BUG_ON(old is new, "vm-bug-move-account-same", "from == to")
    VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-move-account-lru", "PageLRU(page)")
    if not trylock_page(page):
        return EBUSY
    if page.mem_cgroup is not old:
        unlock_page(page)
        return EINVAL
    anon = PageAnon(page)
    spin_lock_irq(old.move_lock)
    moved = []
    if not anon and page_mapped(page):
        moved.append(MEM_CGROUP_STAT_FILE_MAPPED)
    if not anon and PageDirty(page):
        mapping = util.page_mapping(k, page)
        if mapping is not None and mapping.accounts_dirty:
            moved.append(MEM_CGROUP_STAT_DIRTY)
    if PageWriteback(page):
        moved.append(MEM_CGROUP_STAT_WRITEBACK)
    for counter in moved:
        old.stat[counter] -= 1
        new.stat[counter] += 1
    page.mem_cgroup = new
    spin_unlock_irq(old.move_lock)
    mem_cgroup_charge_statistics(new, page, 1)
    mem_cgroup_charge_statistics(old, page, -1)
    unlock_page(page)
    return 0


def get_mctgt_type(
    k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, old: MemCgroup
) -> Page | None:
    """The page of an address if its charge may have to move, with a reference.

    Source:   mm/memcontrol.c get_mctgt_type(), mc_handle_present_pte(), mc_handle_swap_pte(),
              mc_handle_file_pte(), v4.3.
    Context:  ptl held. A file's page counts though this process does not map it.
    Left out: charges of swap slots.
    """
    value = pte.value
    page: Page | None = None
    if value.kind == PRESENT:
        page = value.page
        if page is None or not page_mapped(page) or not get_page_unless_zero(page):
            return None
    elif value.kind == SWAP:
        page = filemap.find_get_page(k, k.swap.space, value.swap)
    elif value.kind == NONE and vma.vm_file is not None:
        pgoff = memory.linear_page_index(vma, address)
        entry = filemap.find_get_entry(k, vma.vm_file, pgoff)
        if isinstance(entry, int):
            entry = filemap.find_get_page(k, k.swap.space, entry)
        page = entry if isinstance(entry, Page) else None
    if page is None:
        return None
    if page.mem_cgroup is not old:
        swap.put_page(k, page)
        return None
    return page


def mem_cgroup_move_charge(k: Kernel, mm: MmStruct, old: MemCgroup, new: MemCgroup) -> None:
    """Move the charges of what a process maps.

    Source:   mm/memcontrol.c mem_cgroup_move_charge(), mem_cgroup_move_charge_pte_range(), v4.3,
              with memory.move_charge_at_immigrate 3: anonymous and file pages.
                                               Patches: fix:memcg-move-end.
    Context:  sleeps; mmap_sem for read (the kernel tries again and again, it does not queue); the
              ptl.
    Left out: precharging, limits; the group is charged page by page, as each is moved.
    """
    swap.lru_add_drain_all(k)
    atomic_add_moving_account(old, 1)
    synchronize_rcu(k.machine)
    down_read(mm.mmap_sem)
    for vma in mm.vmas:
        if vma.hugetlb:
            continue  # a walk without a hugetlb_entry passes it over
        spin_lock(mm.page_table_lock)
        for address in range(vma.vm_start, vma.vm_end):
            pte = memory.pte_offset(mm, address)
            page = get_mctgt_type(k, vma, address, pte, old)
            if page is None:
                continue
            if vmscan.isolate_lru_page(k, page) == 0:
                if mem_cgroup_move_account(k, page, old, new) == 0:
                    old.memory -= 1
                    new.memory += 1
                vmscan.putback_lru_page(k, page)
            swap.put_page(k, page)
        spin_unlock(mm.page_table_lock)
    up_read(mm.mmap_sem)
    if FIX_MEMCG_MOVE_END in k.patches:
        synchronize_rcu(k.machine)
    atomic_add_moving_account(old, -1)


def cgroup_attach(k: Kernel, mm: MmStruct, number: int) -> int:
    """Put a process into a group, and let its charges follow.

    Source:   kernel/cgroup.c cgroup_attach_task(); mm/memcontrol.c mem_cgroup_move_task(), v4.3.
    Context:  sleeps; takes cgroup_mutex.      Returns: 0; -EINVAL: no such group.
    """
    if number >= MEMCGS_COUNT:
        return EINVAL
    mutex = k.memcgs[0].cgroup_mutex
    mutex_lock(mutex)
    while number >= len(k.memcgs):
        k.memcgs.append(MemCgroup(k.machine, f"M{len(k.memcgs)}", len(k.memcgs) + 1))
    old, new = mm.memcg, k.memcgs[number]
    if old is not new:
        mm.memcg = new
        if old is not None:
            mem_cgroup_move_charge(k, mm, old, new)
    mutex_unlock(mutex)
    return 0
