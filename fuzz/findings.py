"""The table of finding ids: what each means, where the kernel says it, what it does not claim."""

from __future__ import annotations

from dataclasses import dataclass

from fuzz.oracles import ORACLES


@dataclass(frozen=True)
class FindingInfo:
    """id; title in the kernel's words; source: kernel function, or `oracle`; invariant: of
    kernel-reference 7.3; rows: of the race catalogue; not_checked; word: what the diagram marks.
    """

    id: str
    title: str
    source: str
    invariant: str = ""
    rows: str = ""
    not_checked: str = ""
    word: str = ""


_BAD_PAGE = "mm/page_alloc.c free_pages_check()"


def _bad(cause: str, title: str, rows: str = "", word: str = "") -> FindingInfo:
    return FindingInfo(
        f"bad-page-state-{cause}", f"BUG: Bad page state: {title}", _BAD_PAGE, "I3", rows, "", word
    )


def _bug(id: str, title: str, source: str, rows: str = "", word: str = "") -> FindingInfo:
    return FindingInfo(id, title, source, "I19", rows, "", word)


_TABLE: tuple[FindingInfo, ...] = (
    FindingInfo(
        "mlocked-page-leak",
        "page left PageMlocked that no VM_LOCKED vma maps",
        "oracle",
        "I1",
        "2b-i 2b-iii 2f",
        "mid-run; pages without a reference",
        "flags.mlocked",
    ),
    FindingInfo(
        "nr-mlock-mismatch",
        "NR_MLOCK is not the number of PageMlocked pages",
        "oracle",
        "I2",
        "X1",
        "mid-run; pages withheld as bad",
        "flags.mlocked",
    ),
    FindingInfo(
        "mlock-lost-by-migration",
        "page mapped in a VM_LOCKED vma lost PG_mlocked to its migration",
        "oracle",
        "3a 3b",
        "3a",
        "flags lost to anybody else; vmas split or merged meanwhile",
        "flags.mlocked",
    ),
    FindingInfo(
        "mlock-lost-by-rmap-walk",
        "munlock or reclaim walk passed by a VM_LOCKED vma",
        "oracle",
        "2c 2d",
        "2c 2d",
        "walks with TTU_IGNORE_MLOCK or stopped by SWAP_FAIL; vmas split or merged",
        "flags.mlocked",
    ),
    FindingInfo(
        "refcount-mismatch",
        "references are not those that can be accounted for",
        "oracle",
        "I7",
        "",
        "mid-run: see mapped-without-reference",
        "refcount",
    ),
    FindingInfo(
        "mapcount-mismatch",
        "mapcount or its counters are not the number of ptes",
        "oracle",
        "I6",
        "",
        "mid-run: see mapcount-wrong-for-a-while",
        "mapcount",
    ),
    FindingInfo(
        "lru-inconsistent",
        "LRU lists and page flags disagree",
        "oracle",
        "I4",
        "",
        "mid-run; a Mlocked page on an evictable list",
        "flags.lru",
    ),
    FindingInfo(
        "migration-entry-left",
        "migration entry outlived its migration",
        "oracle",
        "I9",
        "",
        "between migration ends",
        "pte",
    ),
    FindingInfo(
        "memcg-stat-mismatch",
        "memory.stat of a group is not what its pages are: dirty, mapped, writeback",
        "oracle",
        "I16",
        "0610c25daa3e",
        "mid-run",
        "mem_cgroup",
    ),
    FindingInfo(
        "memcg-charge-mismatch",
        "a group is charged for other pages than it has",
        "oracle",
        "I16",
        "",
        "mid-run; the root group",
        "mem_cgroup",
    ),
    FindingInfo(
        "memcg-lru-size-mismatch",
        "lru_size of a group's list is not its length",
        "oracle",
        "I16",
        "4-lrucare",
        "mid-run; which group's list a page is linked on",
        "mem_cgroup",
    ),
    FindingInfo(
        "dirty-tag-on-unaccounted-mapping",
        "page tagged dirty in a mapping that never accounts dirty pages; with tracing on, a NULL "
        "pointer dereference in writeback_dirty_page",
        "oracle",
        "",
        "12d",
        "mid-run; a tag that went with its page",
        "page_tree",
    ),
    FindingInfo(
        "lock-order",
        "possible circular locking dependency, or locks against their documented order",
        "oracle",
        "3",
        "",
        "campaign runs but those of the corpus; trylocks as takers; PG_writeback, RCU, wait queues",
    ),
    FindingInfo(
        "rss-mismatch",
        "rss counters are not what the ptes hold",
        "oracle",
        "I8",
        "",
        "mid-run: see rss-wrong-for-a-while",
        "pte",
    ),
    FindingInfo(
        "mapcount-wrong-for-a-while",
        "a ptl was let go with mapcount not the number of ptes",
        "oracle",
        "I6",
        "",
        "campaign runs but those of the corpus; while two ptls are held",
        "mapcount",
    ),
    FindingInfo(
        "mapped-without-reference",
        "a ptl was let go with more ptes mapping a page than it has references",
        "oracle",
        "I7",
        "",
        "campaign runs but those of the corpus; while two ptls are held",
        "refcount",
    ),
    FindingInfo(
        "rss-wrong-for-a-while",
        "a ptl was let go with rss counters not what the ptes hold",
        "oracle",
        "I8",
        "",
        "campaign runs but those of the corpus; while two ptls are held; file pages"
        " taken for anonymous ones",
        "pte",
    ),
    FindingInfo(
        "zone-counter-mismatch",
        "a zone counter is not what a recount gives",
        "oracle",
        "I10",
        "",
        "mid-run",
        "flags.dirty",
    ),
    FindingInfo(
        "swap-count-mismatch",
        "a swap slot's count is not the number of entries that refer to it",
        "oracle",
        "",
        "",
        "mid-run",
        "swap_map",
    ),
    FindingInfo(
        "anon-vma-refcount-mismatch",
        "anon_vma references are not the structural ones",
        "oracle",
        "I15",
        "7c",
        "mid-run",
        "anon_vma.refcount",
    ),
    FindingInfo(
        "extra-dirty-accounting",
        "migration counts its new page as dirtied",
        "oracle",
        "I11",
        "12a",
        "dirt of the old page",
        "flags.dirty",
    ),
    FindingInfo(
        "migration-made-swap-entry",
        "migration leaves a swap entry in a pte",
        "oracle",
        "I18",
        "10a 10b",
        "entries made by reclaim",
        "pte",
    ),
    FindingInfo(
        "page-anon-lost",
        "old page stops being PageAnon while referenced",
        "oracle",
        "I14",
        "8a",
        "migrations nobody watches",
        "mapping",
    ),
    FindingInfo(
        "newpage-touched-early",
        "newpage of a failed migration had a foreign mapping",
        "oracle",
        "I20",
        "11a",
        "index, PG_swapbacked",
        "mapping",
    ),
    FindingInfo(
        "pool-leak",
        "page of a pool never given back",
        "oracle",
        "I12",
        "6a 6b",
        "mid-run",
        "free_list",
    ),
    FindingInfo(
        "newpage-residue",
        "unused newpage is not as it was handed out",
        "oracle",
        "I13",
        "11b 11c",
        "page lock and references",
        "index",
    ),
    FindingInfo(
        "write-lost",
        "what a user wrote is gone",
        "oracle",
        "",
        "",
        "truncated or unmapped pages",
        "pte",
    ),
    FindingInfo(
        "soft-dirty-lost",
        "a written page is not soft-dirty",
        "oracle",
        "I17",
        "10d X8",
        "while clear_refs runs; reclaimed file pages",
        "pte",
    ),
    FindingInfo(
        "use-after-free",
        "a freed page or vma is touched",
        "oracle",
        "",
        "",
        "reads of freed pages; anon_vmas; address spaces",
        "",
    ),
    _bad("mlocked", "flag mlocked set at free", "2a 2b-iii 2e", "flags.mlocked"),
    _bad("locked", "flag locked set at free"),
    _bad("lru", "flag lru set at free"),
    _bad("active", "flag active set at free"),
    _bad("unevictable", "flag unevictable set at free"),
    _bad("writeback", "flag writeback set at free"),
    _bad("private", "flag private set at free"),
    _bad("swapcache", "flag swapcache set at free"),
    _bad("flags", "several flags set at free"),
    _bad("mapcount", "nonzero mapcount"),
    _bad("mapping", "non-NULL mapping"),
    _bad("refcount", "nonzero _count"),
    _bad("memcg", "page still charged to cgroup"),
    FindingInfo(
        "bad-page-state-new",
        "BUG: Bad page state: somebody has written to a free page",
        "mm/page_alloc.c check_new_page()",
        "I3",
    ),
    FindingInfo("bad-rss-counter", "BUG: Bad rss-counter state", "kernel/fork.c check_mm()", "I8"),
    FindingInfo("bad-page-map", "BUG: Bad page map", "mm/memory.c print_bad_pte()", "I6"),
    FindingInfo(
        "warn-dirty-not-uptodate",
        "WARNING: !PagePrivate(page) && !PageUptodate(page)",
        "mm/page-writeback.c __set_page_dirty_nobuffers()",
    ),
    _bug(
        "bug-newpage-trylock",
        "kernel BUG: newpage is locked by somebody else",
        "mm/migrate.c move_to_new_page()",
        "7a 7a-hugetlb",
        "flags.locked",
    ),
    _bug(
        "vm-bug-move-to-new-page-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked)",
        "mm/migrate.c move_to_new_page()",
    ),
    _bug(
        "vm-bug-rmap-walk-ksm-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/ksm.c rmap_walk_ksm()",
    ),
    _bug(
        "bug-split-huge-page-anon",
        "BUG_ON(!PageAnon(page))",
        "mm/huge_memory.c split_huge_page_to_list()",
    ),
    _bug(
        "bug-split-huge-page-backed",
        "BUG_ON(!PageSwapBacked(page))",
        "mm/huge_memory.c split_huge_page_to_list()",
    ),
    _bug(
        "bug-split-huge-page-mapcount",
        "BUG(): mapcount is not the number of pmds",
        "mm/huge_memory.c __split_huge_page()",
    ),
    _bug(
        "vm-bug-try-to-unmap-huge",
        "VM_BUG_ON_PAGE(!PageHuge(page) && PageTransHuge(page))",
        "mm/rmap.c try_to_unmap()",
    ),
    _bug(
        "vm-bug-ksm-migrate-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/ksm.c ksm_migrate_page()",
    ),
    _bug(
        "vm-bug-ksm-migrate-mapping",
        "VM_BUG_ON_PAGE(newpage->mapping != oldpage->mapping)",
        "mm/ksm.c ksm_migrate_page()",
    ),
    _bug(
        "vm-bug-ksm-migrate-kpfn",
        "VM_BUG_ON_PAGE(stable_node->kpfn != page_to_pfn(oldpage))",
        "mm/ksm.c ksm_migrate_page()",
    ),
    _bug(
        "bug-make-migration-entry-unlocked",
        "BUG_ON(!PageLocked(page))",
        "include/linux/swapops.h make_migration_entry()",
    ),
    _bug(
        "bug-migration-entry-unlocked",
        "BUG_ON(!PageLocked(p)): the entry outlived its migration",
        "include/linux/swapops.h migration_entry_to_page()",
    ),
    _bug(
        "vm-bug-migrate-page-copy-active-unevictable",
        "VM_BUG_ON_PAGE(PageUnevictable(page))",
        "mm/migrate.c migrate_page_copy()",
    ),
    _bug(
        "bug-migrate-page-writeback", "BUG_ON(PageWriteback(page))", "mm/migrate.c migrate_page()"
    ),
    _bug(
        "bug-unmap-anon-without-swap",
        "BUG_ON(!(flags & TTU_MIGRATION))",
        "mm/rmap.c try_to_unmap_one()",
    ),
    _bug(
        "vm-bug-try-to-munlock",
        "VM_BUG_ON_PAGE(!PageLocked(page) || PageLRU(page))",
        "mm/rmap.c try_to_munlock()",
    ),
    _bug(
        "vm-bug-rmap-walk-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/rmap.c rmap_walk_file()",
    ),
    _bug(
        "vm-bug-anon-rmap-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/rmap.c do_page_add_anon_rmap()",
    ),
    _bug("bug-mlock-vma-page-unlocked", "BUG_ON(!PageLocked(page))", "mm/mlock.c mlock_vma_page()"),
    _bug(
        "bug-munlock-vma-page-unlocked",
        "BUG_ON(!PageLocked(page))",
        "mm/mlock.c munlock_vma_page()",
    ),
    _bug(
        "vm-bug-putback-fast-lru",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/mlock.c __putback_lru_fast_prepare()",
    ),
    _bug(
        "vm-bug-putback-fast-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/mlock.c __putback_lru_fast_prepare()",
    ),
    _bug(
        "vm-bug-putback-lru-page", "VM_BUG_ON_PAGE(PageLRU(page))", "mm/vmscan.c putback_lru_page()"
    ),
    _bug(
        "vm-bug-isolate-lru-page",
        "VM_BUG_ON_PAGE(!page_count(page))",
        "mm/vmscan.c isolate_lru_page()",
    ),
    _bug(
        "bug-isolate-unevictable",
        "BUG(): unevictable page on an evictable list",
        "mm/vmscan.c isolate_lru_pages()",
    ),
    _bug(
        "vm-bug-putback-inactive-pages",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/vmscan.c putback_inactive_pages()",
    ),
    _bug(
        "vm-bug-shrink-page-list-active",
        "VM_BUG_ON_PAGE(PageActive(page))",
        "mm/vmscan.c shrink_page_list()",
    ),
    _bug("vm-bug-lru-cache-add-lru", "VM_BUG_ON_PAGE(PageLRU(page))", "mm/swap.c lru_cache_add()"),
    _bug(
        "vm-bug-lru-cache-add-active-unevictable",
        "VM_BUG_ON_PAGE(PageActive(page) && PageUnevictable(page))",
        "mm/swap.c lru_cache_add()",
    ),
    _bug(
        "vm-bug-pagevec-lru-add",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/swap.c __pagevec_lru_add_fn()",
        "X-balloon",
        "flags.lru",
    ),
    _bug("vm-bug-release-pages-lru", "VM_BUG_ON_PAGE(!PageLRU(page))", "mm/swap.c release_pages()"),
    _bug(
        "vm-bug-lru-cache-add-active-or-unevictable",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/swap.c lru_cache_add_active_or_unevictable()",
    ),
    _bug(
        "bug-clear-page-dirty-unlocked",
        "BUG_ON(!PageLocked(page))",
        "mm/page-writeback.c clear_page_dirty_for_io()",
    ),
    _bug(
        "vm-bug-find-lock-entry",
        "VM_BUG_ON_PAGE(page->index != offset)",
        "mm/filemap.c find_lock_entry()",
    ),
    _bug(
        "vm-bug-filemap-fault",
        "VM_BUG_ON_PAGE(page->index != offset)",
        "mm/filemap.c filemap_fault()",
    ),
    _bug(
        "bug-delete-mapped-page",
        "BUG_ON(page_mapped(page))",
        "mm/filemap.c __delete_from_page_cache()",
    ),
    _bug(
        "bug-invalidate-mapped",
        "BUG_ON(page_mapped(page))",
        "mm/truncate.c invalidate_inode_pages2_range()",
    ),
    _bug("vm-bug-unlock-page", "VM_BUG_ON_PAGE(!PageLocked(page))", "mm/filemap.c unlock_page()"),
    _bug(
        "vm-bug-get-page",
        "VM_BUG_ON_PAGE(atomic_read(&page->_count) <= 0)",
        "include/linux/mm.h get_page()",
    ),
    _bug(
        "vm-bug-put-page",
        "VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)",
        "include/linux/mm.h put_page_testzero()",
    ),
    _bug(
        "vm-bug-unfreeze-refs",
        "VM_BUG_ON_PAGE(page_count(page) != 0)",
        "include/linux/pagemap.h page_unfreeze_refs()",
    ),
    _bug("bug-list-del", "list_del corruption", "lib/list_debug.c __list_del_entry()"),
    _bug("bug-set-anon-rmap", "BUG_ON(!anon_vma)", "mm/rmap.c __page_set_anon_rmap()"),
    _bug(
        "vm-bug-new-anon-rmap-address",
        "VM_BUG_ON_VMA(address outside vma)",
        "mm/rmap.c page_add_new_anon_rmap()",
    ),
    _bug(
        "vm-bug-isolate-lru-pages",
        "VM_BUG_ON_PAGE(!PageLRU(page))",
        "mm/vmscan.c isolate_lru_pages()",
    ),
    _bug(
        "vm-bug-shrink-page-list-kept",
        "VM_BUG_ON_PAGE(PageLRU(page) || PageUnevictable(page))",
        "mm/vmscan.c shrink_page_list()",
    ),
    _bug(
        "bug-remove-mapping-unlocked", "BUG_ON(!PageLocked(page))", "mm/vmscan.c __remove_mapping()"
    ),
    _bug(
        "bug-remove-mapping-other",
        "BUG_ON(mapping != page_mapping(page))",
        "mm/vmscan.c __remove_mapping()",
    ),
    _bug(
        "vm-bug-lru-size",
        "VM_BUG_ON((long)(*lru_size) < 0)",
        "mm/memcontrol.c mem_cgroup_update_lru_size()",
        "4-lrucare",
    ),
    _bug(
        "vm-bug-try-charge-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/memcontrol.c mem_cgroup_try_charge()",
    ),
    _bug(
        "vm-bug-commit-charge-mapping",
        "VM_BUG_ON_PAGE(!page->mapping)",
        "mm/memcontrol.c mem_cgroup_commit_charge()",
    ),
    _bug(
        "vm-bug-commit-charge-lru",
        "VM_BUG_ON_PAGE(PageLRU(page) && !lrucare)",
        "mm/memcontrol.c mem_cgroup_commit_charge()",
    ),
    _bug(
        "vm-bug-commit-charge-twice",
        "VM_BUG_ON_PAGE(page->mem_cgroup)",
        "mm/memcontrol.c commit_charge()",
    ),
    _bug(
        "vm-bug-unlock-page-lru",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/memcontrol.c unlock_page_lru()",
    ),
    _bug("vm-bug-uncharge-lru", "VM_BUG_ON_PAGE(PageLRU(page))", "mm/memcontrol.c uncharge_list()"),
    _bug(
        "vm-bug-uncharge-count",
        "VM_BUG_ON_PAGE(page_count(page))",
        "mm/memcontrol.c uncharge_list()",
    ),
    _bug(
        "vm-bug-replace-page-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked)",
        "mm/memcontrol.c mem_cgroup_replace_page()",
    ),
    _bug(
        "vm-bug-migrate-charge-lru",
        "VM_BUG_ON_PAGE(!lrucare && PageLRU)",
        "mm/memcontrol.c mem_cgroup_migrate()",
    ),
    _bug(
        "vm-bug-replace-page-anon",
        "VM_BUG_ON_PAGE(PageAnon(oldpage) != PageAnon(newpage))",
        "mm/memcontrol.c mem_cgroup_replace_page()",
    ),
    _bug(
        "vm-bug-replace-page-huge",
        "VM_BUG_ON_PAGE(PageTransHuge(oldpage) != PageTransHuge(newpage))",
        "mm/memcontrol.c mem_cgroup_replace_page()",
    ),
    _bug(
        "bug-check-anon-rmap-root",
        "BUG_ON(page_anon_vma(page)->root != vma->anon_vma->root)",
        "mm/rmap.c __page_check_anon_rmap()",
    ),
    _bug(
        "bug-check-anon-rmap-index",
        "BUG_ON(page->index != linear_page_index(vma, address))",
        "mm/rmap.c __page_check_anon_rmap()",
    ),
    _bug(
        "bug-page-swap-info",
        "BUG_ON(!PageSwapCache(page))",
        "mm/swapfile.c page_swap_info()",
    ),
    _bug(
        "vm-bug-populate-range",
        "VM_BUG_ON_VMA(start < vma->vm_start || end > vma->vm_end)",
        "mm/gup.c populate_vma_page_range()",
    ),
    _bug(
        "vm-bug-populate-unlocked",
        "VM_BUG_ON_MM(!rwsem_is_locked(&mm->mmap_sem))",
        "mm/gup.c populate_vma_page_range()",
    ),
    _bug(
        "vm-bug-add-to-swap-cache-exists",
        "VM_BUG_ON(error == -EEXIST)",
        "mm/swap_state.c __add_to_swap_cache()",
    ),
    _bug(
        "vm-bug-put-page-lru", "VM_BUG_ON_PAGE(!PageLRU(page))", "mm/swap.c __page_cache_release()"
    ),
    _bug(
        "bug-page-buffers",
        "BUG_ON(!PagePrivate(page))",
        "include/linux/buffer_head.h page_buffers()",
    ),
    _bug(
        "vm-bug-move-account-same",
        "VM_BUG_ON(from == to)",
        "mm/memcontrol.c mem_cgroup_move_account()",
    ),
    _bug(
        "vm-bug-move-account-lru",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/memcontrol.c mem_cgroup_move_account()",
    ),
    _bug(
        "bug-try-to-free-buffers", "BUG_ON(!PageLocked(page))", "fs/buffer.c try_to_free_buffers()"
    ),
    _bug(
        "bug-try-to-release-page", "BUG_ON(!PageLocked(page))", "mm/filemap.c try_to_release_page()"
    ),
    _bug(
        "bug-block-write-full-page",
        "BUG_ON(PageWriteback(page))",
        "fs/buffer.c __block_write_full_page()",
    ),
    _bug("bug-aio-migratepage", "BUG_ON(PageWriteback(old))", "fs/aio.c aio_migratepage()"),
    _bug(
        "vm-bug-replace-cache-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/filemap.c replace_page_cache_page()",
    ),
    _bug(
        "vm-bug-replace-cache-mapping",
        "VM_BUG_ON_PAGE(new->mapping)",
        "mm/filemap.c replace_page_cache_page()",
    ),
    _bug("vm-bug-swap-entry-free", "VM_BUG_ON(!has_cache)", "mm/swapfile.c swap_entry_free()"),
    _bug(
        "vm-bug-reuse-swap-page",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/swapfile.c reuse_swap_page()",
    ),
    _bug(
        "vm-bug-try-to-free-swap",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/swapfile.c try_to_free_swap()",
    ),
    _bug(
        "vm-bug-add-to-swap-cache-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/swap_state.c __add_to_swap_cache()",
    ),
    _bug(
        "vm-bug-add-to-swap-cache-twice",
        "VM_BUG_ON_PAGE(PageSwapCache(page))",
        "mm/swap_state.c __add_to_swap_cache()",
    ),
    _bug(
        "vm-bug-add-to-swap-cache-backed",
        "VM_BUG_ON_PAGE(!PageSwapBacked(page))",
        "mm/swap_state.c __add_to_swap_cache()",
    ),
    _bug(
        "vm-bug-delete-from-swap-cache-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/swap_state.c __delete_from_swap_cache()",
    ),
    _bug(
        "vm-bug-delete-from-swap-cache",
        "VM_BUG_ON_PAGE(!PageSwapCache(page))",
        "mm/swap_state.c __delete_from_swap_cache()",
    ),
    _bug(
        "vm-bug-delete-from-swap-cache-writeback",
        "VM_BUG_ON_PAGE(PageWriteback(page))",
        "mm/swap_state.c __delete_from_swap_cache()",
    ),
    _bug(
        "vm-bug-add-to-swap-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/swap_state.c add_to_swap()",
    ),
    _bug(
        "vm-bug-add-to-swap-uptodate",
        "VM_BUG_ON_PAGE(!PageUptodate(page))",
        "mm/swap_state.c add_to_swap()",
    ),
    _bug(
        "vm-bug-swap-readpage-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/page_io.c swap_readpage()",
    ),
    _bug(
        "vm-bug-swap-readpage-uptodate",
        "VM_BUG_ON_PAGE(PageUptodate(page))",
        "mm/page_io.c swap_readpage()",
    ),
    _bug(
        "vm-bug-unmap-anon-without-swap",
        "VM_BUG_ON_PAGE(!PageSwapCache(page))",
        "mm/rmap.c try_to_unmap_one()",
    ),
    _bug(
        "vm-bug-migrate-no-anon-vma",
        "VM_BUG_ON_PAGE(PageAnon(page) && !PageKsm(page) && !anon_vma)",
        "mm/migrate.c __unmap_and_move()",
    ),
    _bug("bug-unlink-anon-vmas-degree", "BUG_ON(anon_vma->degree)", "mm/rmap.c unlink_anon_vmas()"),
    _bug("bug-page-mkclean-unlocked", "BUG_ON(!PageLocked(page))", "mm/rmap.c page_mkclean()"),
    _bug(
        "vm-bug-move-anon-rmap-locked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/rmap.c page_move_anon_rmap()",
    ),
    _bug(
        "vm-bug-move-anon-rmap-vma", "VM_BUG_ON_VMA(!anon_vma)", "mm/rmap.c page_move_anon_rmap()"
    ),
    _bug(
        "bug-set-page-dirty-mapping",
        "BUG_ON(page_mapping(page) != mapping)",
        "mm/page-writeback.c __set_page_dirty_nobuffers()",
    ),
    _bug(
        "bug-end-page-writeback", "BUG(): not under writeback", "mm/filemap.c end_page_writeback()"
    ),
    _bug(
        "bug-write-cache-pages-writeback",
        "BUG_ON(PageWriteback(page))",
        "mm/page-writeback.c write_cache_pages()",
    ),
    _bug(
        "bug-delete-from-page-cache-unlocked",
        "BUG_ON(!PageLocked(page))",
        "mm/filemap.c delete_from_page_cache()",
    ),
    _bug(
        "vm-bug-shmem-add-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked(page))",
        "mm/shmem.c shmem_add_to_page_cache()",
    ),
    _bug(
        "vm-bug-shmem-add-backed",
        "VM_BUG_ON_PAGE(!PageSwapBacked(page))",
        "mm/shmem.c shmem_add_to_page_cache()",
    ),
    _bug("bug-shmem-delete", "BUG_ON(error)", "mm/shmem.c shmem_delete_from_page_cache()"),
    _bug(
        "vm-bug-shmem-undo-range",
        "VM_BUG_ON_PAGE(PageWriteback(page))",
        "mm/shmem.c shmem_undo_range()",
    ),
    _bug(
        "bug-shmem-writepage-unlocked", "BUG_ON(!PageLocked(page))", "mm/shmem.c shmem_writepage()"
    ),
    _bug("bug-shmem-writepage-mapped", "BUG_ON(page_mapped(page))", "mm/shmem.c shmem_writepage()"),
    _bug(
        "vm-bug-move-active-pages",
        "VM_BUG_ON_PAGE(PageLRU(page))",
        "mm/vmscan.c move_active_pages_to_lru()",
    ),
    FindingInfo(
        "warn-delete-dirty-page",
        "WARNING: PageDirty(page)",
        "mm/filemap.c __delete_from_page_cache()",
    ),
    _bug(
        "bug-no-readpage",
        "BUG: unable to handle kernel NULL pointer dereference: mapping->a_ops->readpage",
        "mm/filemap.c page_cache_read()",
        "X9",
    ),
    _bug(
        "bug-balloon-newpage-trylock",
        "kernel BUG: newpage of a balloon page is locked by somebody else",
        "mm/balloon_compaction.c balloon_page_migrate()",
        "7a-balloon",
        "flags.locked",
    ),
    _bug(
        "vm-bug-balloon-migrate-unlocked",
        "VM_BUG_ON_PAGE(!PageLocked)",
        "mm/balloon_compaction.c balloon_page_migrate()",
    ),
    _bug(
        "bug-balloon-enqueue-locked",
        "BUG_ON(!trylock_page(page))",
        "mm/balloon_compaction.c balloon_page_enqueue()",
    ),
    _bug(
        "bug-balloon-dequeue-lost",
        "BUG(): balloon pages are lost",
        "mm/balloon_compaction.c balloon_page_dequeue()",
    ),
    FindingInfo(
        "warn-balloon-not-movable",
        "WARNING: not movable balloon page",
        "mm/balloon_compaction.c balloon_page_migrate()",
    ),
    _bug(
        "bug-hugetlb-null-mapping",
        "a huge page without a mapping is moved as one of hugetlbfs",
        "mm/migrate.c migrate_huge_page_move_mapping()",
        "11d",
    ),
    _bug(
        "bug-ksm-null-anon-vma",
        "a reference is taken on the anon_vma of a vma that has none",
        "mm/ksm.c try_to_merge_with_ksm_page()",
        "X-ksm-vma",
    ),
    _bug("bug-free-huge-page-count", "BUG_ON(page_count(page))", "mm/hugetlb.c free_huge_page()"),
    _bug(
        "bug-free-huge-page-mapcount",
        "BUG_ON(page_mapcount(page))",
        "mm/hugetlb.c free_huge_page()",
    ),
    _bug(
        "vm-bug-isolate-huge-page",
        "VM_BUG_ON_PAGE(!PageHead(page))",
        "mm/hugetlb.c isolate_huge_page()",
    ),
    _bug(
        "vm-bug-putback-huge-page",
        "VM_BUG_ON_PAGE(!PageHead(page))",
        "mm/hugetlb.c putback_active_hugepage()",
    ),
    _bug(
        "bug-hugepage-anon-rmap-unlocked",
        "BUG_ON(!PageLocked(page))",
        "mm/rmap.c hugepage_add_anon_rmap()",
    ),
    _bug(
        "bug-hugepage-new-anon-rmap-address",
        "BUG_ON(address outside vma)",
        "mm/rmap.c hugepage_add_new_anon_rmap()",
    ),
    FindingInfo("deadlock", "no task can run", "machine", "", "", "a deadlock after a BUG"),
    FindingInfo("step-limit", "the run did not end: a livelock suspect", "machine"),
    FindingInfo(
        "sleeping-in-atomic",
        "BUG: sleeping function called from invalid context",
        "kernel/sched/core.c ___might_sleep()",
    ),
    FindingInfo("context-error", "a lock released by a task that does not hold it", "machine"),
)

FINDINGS: dict[str, FindingInfo] = {info.id: info for info in _TABLE}
assert all(oracle.id in FINDINGS for oracle in ORACLES)


def title(id: str) -> str:
    """The title of a finding; its id where the table does not know it (a user's own oracle)."""
    info = FINDINGS.get(id)
    return info.title if info else id
