"""Bits and small constants, named as the kernel names them. Values are ours."""

from __future__ import annotations

# include/linux/page-flags.h
PG_locked = 1 << 0
PG_referenced = 1 << 1
PG_uptodate = 1 << 2
PG_dirty = 1 << 3
PG_lru = 1 << 4
PG_active = 1 << 5
PG_swapbacked = 1 << 6
PG_unevictable = 1 << 7
PG_mlocked = 1 << 8
PG_writeback = 1 << 9
PG_private = 1 << 10
PG_swapcache = 1 << 11
PG_reclaim = 1 << 12
PG_head = 1 << 13  # a huge page, which is one Page here
PG_huge_active = 1 << 14  # PG_private of its first tail page

PAGE_FLAG_NAMES = {
    PG_locked: "locked",
    PG_referenced: "referenced",
    PG_uptodate: "uptodate",
    PG_dirty: "dirty",
    PG_lru: "lru",
    PG_active: "active",
    PG_swapbacked: "swapbacked",
    PG_unevictable: "unevictable",
    PG_mlocked: "mlocked",
    PG_writeback: "writeback",
    PG_private: "private",
    PG_swapcache: "swapcache",
    PG_reclaim: "reclaim",
    PG_head: "head",
    PG_huge_active: "huge_active",
}
# Flags that must be clear when a page is freed (free_pages_check).
PAGE_FLAGS_CHECK_AT_FREE = (
    PG_locked
    | PG_lru
    | PG_active
    | PG_unevictable
    | PG_mlocked
    | PG_writeback
    | PG_private
    | PG_swapcache
)

# include/linux/mm.h: the mapcount of a balloon's page, counted from 0 as all mapcounts here
PAGE_BALLOON_MAPCOUNT = -255

# include/linux/mm.h
VM_READ = 1 << 0
VM_WRITE = 1 << 1
VM_SHARED = 1 << 3
VM_LOCKED = 1 << 13
VM_SPECIAL = 1 << 14
VM_HUGETLB = 1 << 22
VM_SOFTDIRTY = 1 << 27
VM_HUGEPAGE = 1 << 29
VM_MERGEABLE = 1 << 31

# include/linux/mm.h: FOLL_*
FOLL_WRITE = 1 << 0
FOLL_TOUCH = 1 << 1
FOLL_GET = 1 << 2
FOLL_DUMP = 1 << 3
FOLL_POPULATE = 1 << 6
FOLL_MIGRATION = 1 << 10

# include/linux/rmap.h: what try_to_unmap is for, and what it answers
TTU_UNMAP = 1
TTU_MIGRATION = 2
TTU_MUNLOCK = 4
TTU_IGNORE_MLOCK = 1 << 8
TTU_IGNORE_ACCESS = 1 << 9

SWAP_SUCCESS = 0
SWAP_AGAIN = 1
SWAP_FAIL = 2
SWAP_MLOCK = 3

# include/linux/mmzone.h: LRU lists; counters (exact integers here, no per-cpu deltas)
LRU_INACTIVE_ANON = 0
LRU_ACTIVE_ANON = 1
LRU_INACTIVE_FILE = 2
LRU_ACTIVE_FILE = 3
LRU_UNEVICTABLE = 4
NR_LRU_LISTS = 5
LRU_NAMES = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")

NR_MLOCK = 6
NR_ANON_PAGES = 7
NR_FILE_MAPPED = 8
NR_FILE_PAGES = 9
NR_SHMEM = 10
NR_ISOLATED_ANON = 11
NR_ISOLATED_FILE = 12
NR_FILE_DIRTY = 13
NR_DIRTIED = 14
NR_WRITEBACK = 15
NR_WRITTEN = 16
NR_ZONE_COUNTERS = 17

# include/linux/memcontrol.h: counters of a memory group
MEM_CGROUP_STAT_CACHE = 0
MEM_CGROUP_STAT_RSS = 1
MEM_CGROUP_STAT_FILE_MAPPED = 2
MEM_CGROUP_STAT_DIRTY = 3
MEM_CGROUP_STAT_WRITEBACK = 4
NR_MEMCG_COUNTERS = 5
MEMCG_STAT_NAMES = ("CACHE", "RSS", "FILE_MAPPED", "DIRTY", "WRITEBACK")

# include/linux/vm_event_item.h
UNEVICTABLE_PGCULLED = "unevictable_pgs_culled"
UNEVICTABLE_PGRESCUED = "unevictable_pgs_rescued"
UNEVICTABLE_PGMLOCKED = "unevictable_pgs_mlocked"
UNEVICTABLE_PGMUNLOCKED = "unevictable_pgs_munlocked"
UNEVICTABLE_PGCLEARED = "unevictable_pgs_cleared"
UNEVICTABLE_PGSTRANDED = "unevictable_pgs_stranded"
PGMIGRATE_SUCCESS = "pgmigrate_success"
PGMIGRATE_FAIL = "pgmigrate_fail"

# include/linux/mm_types.h: rss counters. shmem pages count as file pages.
MM_FILEPAGES = 0
MM_ANONPAGES = 1
MM_SWAPENTS = 2

# include/linux/migrate_mode.h, and why a migration is done
MIGRATE_ASYNC = 0
MIGRATE_SYNC_LIGHT = 1
MIGRATE_SYNC = 2
MIGRATEPAGE_SUCCESS = 0

PAGEVEC_SIZE = 14

# include/uapi/asm-generic/errno-base.h, and the signals a user access can end in
ENOENT, ESRCH, EIO, EAGAIN = -2, -3, -5, -11
ENOMEM, EACCES, EFAULT, EBUSY, EEXIST, ENODEV, EINVAL = -12, -13, -14, -16, -17, -19, -22
EOPNOTSUPP = -95
EFBIG = -27
SIGBUS, SIGSEGV = -1007, -1011

# What a page fault ends in (include/linux/mm.h)
VM_FAULT_OOM = 1
VM_FAULT_SIGBUS = 2
VM_FAULT_SIGSEGV = 4
VM_FAULT_WRITE = 8
VM_FAULT_NOPAGE = 16
VM_FAULT_LOCKED = 32
VM_FAULT_ERROR = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV
FAULT_FLAG_WRITE = 1
VM_FAULT_RETRY = 64
VM_FAULT_FROZEN = 128  # ours: the kernel returns 0 and meets the same again at once
FAULT_FLAG_ALLOW_RETRY = 2
VM_FAULT_MAJOR = 256
