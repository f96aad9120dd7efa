"""The kernel's objects. Shared words are properties over a private slot: every access is a step.

An oracle reads the private slots (`page._flags`) and never steps. Fields without a property are
constant after set-up, local to one CPU, or exact counters that no race is about.
"""

from __future__ import annotations

from kstate.flags import (
    NR_LRU_LISTS,
    NR_MEMCG_COUNTERS,
    NR_ZONE_COUNTERS,
    PAGE_FLAG_NAMES,
    VM_HUGETLB,
    VM_LOCKED,
    PG_head,
)
from kstate.machine import (
    LOAD,
    KernelBug,
    Machine,
    Mutex,
    MutexClass,
    Primitive,
    RwSem,
    RwSemClass,
    SpinLock,
    SpinLockClass,
    Task,
    look,
    step,
    touch,
)
from kstate.machine.machine import calling_function

# ---- lock classes ------------------------------------------------------------------------------
PTL = SpinLockClass("ptl")
LRU_LOCK = SpinLockClass("lru_lock", irq=True)
TREE_LOCK = SpinLockClass("tree_lock", irq=True)
LRU_ADD_DRAIN_MUTEX = MutexClass("lru_add_drain_all")
POOL_LOCK = SpinLockClass("pool_lock")
HUGETLB_LOCK = SpinLockClass("hugetlb_lock")
HUGETLB_FAULT_MUTEX = MutexClass("hugetlb_fault_mutex")
BALLOON_LOCK = MutexClass("balloon_lock")
BALLOON_PAGES_LOCK = SpinLockClass("balloon_pages_lock", irq=True)
MMAP_SEM = RwSemClass("mmap_sem")
SWAP_LOCK = SpinLockClass("swap_lock")
PRIVATE_LOCK = SpinLockClass("private_lock")
RING_LOCK = MutexClass("ring_lock")
COMPLETION_LOCK = SpinLockClass("completion_lock", irq=True)
BUFFER_LOCK = MutexClass("buffer")
MOVE_LOCK = SpinLockClass("move_lock", irq=True)
CGROUP_MUTEX = MutexClass("cgroup_mutex")
I_MUTEX = MutexClass("i_mutex")
KSM_THREAD_MUTEX = MutexClass("ksm_thread_mutex")
I_MMAP_RWSEM = RwSemClass("i_mmap_rwsem")
ANON_VMA_RWSEM = RwSemClass("anon_vma_rwsem")

# ---- primitives on plain words -------------------------------------------------------------------
_LOAD_VM_FLAGS = Primitive("load", "vm_flags", LOAD, results=1)
_STORE_VM_FLAGS = Primitive("store", "vm_flags", results=1)
LOAD_MAPPING = Primitive("load", "mapping", LOAD, results=1)
_STORE_MAPPING = Primitive("store", "mapping", results=1)
_LOAD_CONTENT = Primitive("memcmp", "content", LOAD, results=1)
_LOAD_KPFN = Primitive("load", "kpfn", LOAD, results=1)
_STORE_KPFN = Primitive("store", "kpfn", results=1)
_LOAD_BUFFER_DIRTY = Primitive("buffer_dirty", "b_state.dirty", LOAD, results=1)
_SET_BUFFER_DIRTY = Primitive("test_set_buffer_dirty", "b_state.dirty", results=1)
_CLEAR_BUFFER_DIRTY = Primitive("test_clear_buffer_dirty", "b_state.dirty", results=1)
_LOAD_GFP_NODE = Primitive("load", "gfp_mask", LOAD, results=1)
_STORE_GFP_NODE = Primitive("store", "gfp_mask", results=1)
_LOAD_MEM_CGROUP = Primitive("load", "mem_cgroup", LOAD, results=1)
_STORE_MEM_CGROUP = Primitive("store", "mem_cgroup", results=1)
_LOAD_MM_MEMCG = Primitive("load", "mm.memcg", LOAD, results=1)
_STORE_MM_MEMCG = Primitive("store", "mm.memcg", results=1)
_LOAD_MOVING = Primitive("load", "moving_account", LOAD, results=1)
_ADD_MOVING = Primitive("atomic_add", "moving_account", results=1)
_LOAD_PRIVATE = Primitive("load", "private", LOAD, results=1)
_STORE_PRIVATE = Primitive("store", "private", results=1)
_LOAD_I_SIZE = Primitive("load", "i_size", LOAD, results=1)
_STORE_I_SIZE = Primitive("store", "i_size", results=1)
_LOAD_INDEX = Primitive("load", "index", LOAD, results=1)
_STORE_INDEX = Primitive("store", "index", results=1)
_LOAD_PTE = Primitive("load", "pte", LOAD, results=1)
_STORE_PTE = Primitive("store", "pte", results=1)
_XCHG_PTE = Primitive("ptep_get_and_clear", "pte", results=1)
_UPDATE_PTE = Primitive("update", "pte", results=1)
_LRU_ADD = Primitive("list_add", "lru", results=1)
_LRU_MOVE = Primitive("list_move_tail", "lru", results=1)
_LRU_DEL = Primitive("list_del", "lru", results=1)
_PAGEVEC_ADD = Primitive("pagevec_add", "pagevec", results=1)
_PAGEVEC_REINIT = Primitive("pagevec_reinit", "pagevec")
_PAGEVEC_COUNT = Primitive("pagevec_count", "pagevec", LOAD, results=1)
_TAKE_FREE = Primitive("rmqueue", "free_list", results=1)
_TAKE_FREE_HUGE = Primitive("rmqueue", "free_list.huge", results=1)
_DEQUEUE_HUGE = Primitive("dequeue_huge_page", "hugepage_freelists", results=1)
_GIVE_FREE = Primitive("free_one_page", "free_list", results=1)
_LOAD_SLOT = Primitive("load", "page_tree", LOAD, results=1)
_STORE_SLOT = Primitive("store", "page_tree", results=2)
_LOAD_TAG = Primitive("radix_tree_tagged", "page_tree", LOAD, results=1)
_STORE_TAG = Primitive("radix_tree_tag", "page_tree", results=2)
_SWAP_MAP = Primitive("update", "swap_map", results=2)
_LOAD_SWAP_MAP = Primitive("load", "swap_map", LOAD, results=1)
_GET_MM_USER = Primitive("get_mm_user", "mm_users", results=1)
_PUT_MM_USER = Primitive("put_mm_user", "mm_users", results=1)
_BEGIN_EXIT = Primitive("begin_exit", "mm_users")
_TAKE_PROCESS = Primitive("take_process", "processes", results=1)
_FINISH_FORK = Primitive("finish_fork", "mm_users")
_INC_ANON_VMA = Primitive("atomic_inc_not_zero", "anon_vma.refcount", results=1)
_GET_ANON_VMA = Primitive("atomic_inc", "anon_vma.refcount", results=1)
_MM_USERS = Primitive("load", "mm_users", LOAD, results=1)
_DEC_ANON_VMA = Primitive("atomic_dec_and_test", "anon_vma.refcount", results=1)


class Page:
    """struct page. `_mapcount` counts from 0 (the kernel's starts at -1).

    _mapping: an AnonVma or a StableNode (then the page is PageAnon; PageKsm with the latter), an
    AddressSpace, or None.
    _private: the swap entry of a page in the swap cache.
    _mem_cgroup: the group it is charged to, or None. buffers: its buffers, of a PG_private page.
    _token: what is in it; every write leaves a token of its own, 0 is all zeroes.
    nr_pages: hpage_nr_pages(): more than 1 for a huge page; changes by a split only.
    lock_owner: who holds PG_locked; the kernel does not know that, a wait-for cycle must.
    cleared_mlocked: who cleared PG_mlocked last, and when (place in the log); for oracles.
    """

    __slots__ = (
        "_flags",
        "_index",
        "_mapcount",
        "_mapping",
        "_mem_cgroup",
        "_private",
        "_refcount",
        "_token",
        "buffers",
        "cleared_mlocked",
        "id",
        "lock_owner",
        "machine",
        "nr_pages",
        "pfn",
        "zone",
    )

    def __init__(self, machine: Machine, pfn: int, zone: Zone) -> None:
        self.machine = machine
        self.pfn = pfn
        self.zone = zone
        self.nr_pages = 1
        self._flags = 0
        self._refcount = 0
        self._mapcount = 0
        self._mapping: AddressSpace | AnonVma | StableNode | None = None
        self._index = 0
        self._private = 0
        self._mem_cgroup: MemCgroup | None = None
        self.buffers: BufferHead | None = None
        self._token = 0
        self.lock_owner: Task | None = None
        self.cleared_mlocked: tuple[int, int] | None = None
        objects = machine.objects
        self.id = len(objects)
        objects.append(self)

    def label(self) -> str:
        return f"page{self.pfn}"

    def flag_names(self) -> list[str]:
        return [name for bit, name in PAGE_FLAG_NAMES.items() if self._flags & bit]

    @property
    def mapping(self) -> AddressSpace | AnonVma | StableNode | None:
        log = step(LOAD_MAPPING, self)
        value = self._mapping
        log.append(-1 if value is None else value.id)
        return value

    @mapping.setter
    def mapping(self, value: AddressSpace | AnonVma | StableNode | None) -> None:
        log = step(_STORE_MAPPING, self)
        log.append(-1 if value is None else value.id)
        self._mapping = value

    @property
    def mem_cgroup(self) -> MemCgroup | None:
        log = step(_LOAD_MEM_CGROUP, self)
        value = self._mem_cgroup
        log.append(-1 if value is None else value.id)
        return value

    @mem_cgroup.setter
    def mem_cgroup(self, value: MemCgroup | None) -> None:
        log = step(_STORE_MEM_CGROUP, self)
        log.append(-1 if value is None else value.id)
        self._mem_cgroup = value

    @property
    def private(self) -> int:
        step(_LOAD_PRIVATE, self).append(self._private)
        return self._private

    @private.setter
    def private(self, value: int) -> None:
        step(_STORE_PRIVATE, self).append(value)
        self._private = value

    @property
    def index(self) -> int:
        step(_LOAD_INDEX, self).append(self._index)
        return self._index

    @index.setter
    def index(self, value: int) -> None:
        step(_STORE_INDEX, self).append(value)
        self._index = value


NONE, PRESENT, MIGRATION, SWAP = 0, 1, 2, 3


class PteVal:
    """The value of one page table entry; never changed, only replaced.

    kind: NONE, PRESENT, MIGRATION (then `page` is the old page and `write` the entry's type) or
    SWAP (then `swap` is the slot).
    page: None in a present entry for the zero page.
    code: all of it as one integer, for the log and for comparing.
    """

    __slots__ = ("code", "dirty", "kind", "page", "soft_dirty", "swap", "write", "young")

    def __init__(
        self,
        kind: int = NONE,
        page: Page | None = None,
        write: bool = False,
        dirty: bool = False,
        young: bool = False,
        soft_dirty: bool = False,
        swap: int = 0,
    ) -> None:
        self.kind = kind
        self.page = page
        self.write = write
        self.dirty = dirty
        self.young = young
        self.soft_dirty = soft_dirty
        self.swap = swap
        number = swap if page is None else page.pfn + 1
        self.code = kind | write << 2 | dirty << 3 | young << 4 | soft_dirty << 5 | number << 6

    def __repr__(self) -> str:
        return f"PteVal({self.kind}, {self.page and self.page.label()}, code={self.code})"


def pte_same(one: PteVal, other: PteVal) -> bool:
    return one.code == other.code


def pte_with(
    value: PteVal,
    *,
    write: bool | None = None,
    dirty: bool | None = None,
    young: bool | None = None,
    soft_dirty: bool | None = None,
) -> PteVal:
    """The same page or slot with other bits (pte_mkwrite, pte_mkold and their like)."""
    return PteVal(
        value.kind,
        value.page,
        value.write if write is None else write,
        value.dirty if dirty is None else dirty,
        value.young if young is None else young,
        value.soft_dirty if soft_dirty is None else soft_dirty,
        value.swap,
    )


def pte_mkdirty(value: PteVal) -> PteVal:
    """Software sets the dirty bit: on x86 the soft-dirty bit with it; the MMU sets only its own."""
    return pte_with(value, dirty=True, soft_dirty=True)


PTE_NONE = PteVal()


class Pte:
    """A slot of a page table; `lock` (the ptl) protects it. A load or a store is one step.

    In a mapping of huge pages it stands for a pmd, and a unit that is a small page for the one slot
    of the page table below. has_table: there is one, so that no huge page can be mapped here."""

    __slots__ = ("_value", "address", "has_table", "id", "lock", "machine", "mm")

    def __init__(self, mm: MmStruct, address: int) -> None:
        self.machine = mm.machine
        self.mm = mm
        self.address = address
        self.lock = mm.page_table_lock
        self._value = PTE_NONE
        self.has_table = False
        self.id = self.machine.register(self)

    def label(self) -> str:
        return f"pte@{self.mm.name}:{self.address}"

    @property
    def value(self) -> PteVal:
        step(_LOAD_PTE, self).append(self._value.code)
        return self._value


def set_pte_at(pte: Pte, value: PteVal) -> None:
    step(_STORE_PTE, pte).append(value.code)
    pte._value = value


def ptep_get_and_clear(pte: Pte) -> PteVal:
    log = step(_XCHG_PTE, pte)
    value = pte._value
    log.append(value.code)
    pte._value = PTE_NONE
    return value


def ptep_set_wrprotect(pte: Pte) -> PteVal:
    """Make a pte read-only, atomically beside the MMU; returns what it is now."""
    log = step(_UPDATE_PTE, pte)
    pte._value = value = pte_with(pte._value, write=False)
    log.append(value.code)
    return value


def ptep_clear_flush_young(pte: Pte) -> bool:
    """Test and clear the accessed bit, atomically."""
    log = step(_UPDATE_PTE, pte)
    value = pte._value
    if value.young:
        pte._value = pte_with(value, young=False)
    log.append(value.young)
    return value.young


def touch_pte(k: Kernel, pte: Pte, write: bool) -> bool:
    """What the MMU does for one access: walk, check, set accessed and dirty bits, read or write
    the page. One step.

    Returns: False where it would fault."""
    log = step(_UPDATE_PTE, pte)
    value = pte._value
    if value.kind != PRESENT or (write and not value.write):
        log.append(0)
        return False
    if not value.young or (write and not value.dirty):
        pte._value = pte_with(value, dirty=value.dirty or write, young=True)
    page = value.page
    if write and page is not None:
        k.tokens_count += 1
        touch(page, "content")
        page._token = k.tokens_count
    log.append(1)
    if write and page is not None:
        k.machine.note("page-written", page, pte)
    return True


class VmAreaStruct:
    """struct vm_area_struct. vm_start, vm_end: page numbers; changed only under mmap_sem and the
    rmap locks for write. `vm_page_prot`'s only bit that matters here is `prot_write`.
    anon_vma_chain: the anon_vmas its pages may belong to, in list order, latest first.
    hugetlb: VM_HUGETLB, which never changes."""

    __slots__ = (
        "_vm_flags",
        "anon_vma",
        "anon_vma_chain",
        "hugetlb",
        "id",
        "machine",
        "prot_write",
        "vm_end",
        "vm_file",
        "vm_mm",
        "vm_pgoff",
        "vm_start",
    )

    def __init__(
        self,
        mm: MmStruct,
        vm_start: int,
        vm_end: int,
        vm_flags: int,
        vm_file: AddressSpace | None,
        vm_pgoff: int,
    ) -> None:
        self.machine = mm.machine
        self.vm_mm = mm
        self.vm_start = vm_start
        self.vm_end = vm_end
        self.vm_pgoff = vm_pgoff
        self.vm_file = vm_file
        self.anon_vma: AnonVma | None = None
        self.anon_vma_chain: list[AnonVma] = []
        self.prot_write = False
        self.hugetlb = vm_flags & VM_HUGETLB != 0
        self._vm_flags = vm_flags
        self.id = self.machine.register(self)

    def label(self) -> str:
        return f"vma@{self.vm_mm.name}:{self.vm_start}"

    @property
    def vm_flags(self) -> int:
        step(_LOAD_VM_FLAGS, self).append(self._vm_flags)
        return self._vm_flags

    @vm_flags.setter
    def vm_flags(self, value: int) -> None:
        step(_STORE_VM_FLAGS, self).append(value)
        self._vm_flags = value

    @property
    def locked(self) -> bool:
        """For oracles: VM_LOCKED, without a step."""
        return self._vm_flags & VM_LOCKED != 0


class MmStruct:
    """struct mm_struct, and the process that owns it.

    page_table_lock: one ptl for the whole address space, which fits in one page table here.
    vmas: by address. rss: file pages, anonymous pages, swap entries. _users: mm_users, the
    process itself and each of its threads at work. _exiting: it takes no new threads.
    _memcg: the group its owner is in, which pages are charged to; None for the root group.
    mergeable: MMF_VM_MERGEABLE, ksmd may be at work in it.
    """

    __slots__ = (
        "_exiting",
        "_memcg",
        "_users",
        "id",
        "locked_vm",
        "machine",
        "mergeable",
        "mmap_sem",
        "name",
        "page_table_lock",
        "ptes",
        "rss",
        "vmas",
    )

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.mmap_sem = RwSem(machine, MMAP_SEM, f"mmap_sem@{name}")
        self.page_table_lock = SpinLock(machine, PTL, f"ptl@{name}")
        self.vmas: list[VmAreaStruct] = []
        self.ptes: dict[int, Pte] = {}
        self.rss = [0, 0, 0]
        self.locked_vm = 0
        self._users = 1
        self._exiting = False
        self.mergeable = False
        self._memcg: MemCgroup | None = None
        self.id = machine.register(self)

    def label(self) -> str:
        return self.name

    @property
    def memcg(self) -> MemCgroup | None:
        log = step(_LOAD_MM_MEMCG, self)
        log.append(-1 if self._memcg is None else self._memcg.id)
        return self._memcg

    @memcg.setter
    def memcg(self, value: MemCgroup | None) -> None:
        log = step(_STORE_MM_MEMCG, self)
        log.append(-1 if value is None else value.id)
        self._memcg = value


class MemCgroup:
    """struct mem_cgroup, with its struct mem_cgroup_per_zone in Zone.lru_size.

    memory: pages charged (page_counter). stat: exact counters, MEM_CGROUP_STAT_*. number: its
    place in Zone.lru_size; 0 is the root group, whose pages have no MemCgroup here.
    _moving_account: above 0 while charges are moved away; page state then changes under move_lock.
    move_lock_task: who holds that lock for a change of page state. cgroup_mutex: one lock for all
    groups, here the first one's.
    """

    __slots__ = (
        "_moving_account",
        "cgroup_mutex",
        "id",
        "machine",
        "memory",
        "move_lock",
        "move_lock_task",
        "name",
        "number",
        "stat",
    )

    def __init__(self, machine: Machine, name: str, number: int) -> None:
        self.machine = machine
        self.name = name
        self.number = number
        self.memory = 0
        self.stat = [0] * NR_MEMCG_COUNTERS
        self._moving_account = 0
        self.move_lock = SpinLock(machine, MOVE_LOCK, "move_lock@" + name)
        self.move_lock_task: Task | None = None
        self.cgroup_mutex = Mutex(machine, CGROUP_MUTEX, "cgroup_mutex")
        self.id = machine.register(self)

    def label(self) -> str:
        return self.name

    @property
    def moving_account(self) -> int:
        step(_LOAD_MOVING, self).append(self._moving_account)
        return self._moving_account


def atomic_add_moving_account(memcg: MemCgroup, number: int) -> None:
    log = step(_ADD_MOVING, memcg)
    memcg._moving_account += number
    log.append(memcg._moving_account)


def get_mm_user(mm: MmStruct) -> bool:
    """A thread of the process begins to work; False where the process is gone."""
    log = step(_GET_MM_USER, mm)
    alive = not mm._exiting
    mm._users += alive
    log.append(alive)
    return alive


def put_mm_user(mm: MmStruct) -> bool:
    """mm_users, dec and test."""
    log = step(_PUT_MM_USER, mm)
    mm._users -= 1
    log.append(mm._users)
    return mm._users == 0


def begin_exit(mm: MmStruct) -> None:
    step(_BEGIN_EXIT, mm)
    mm._exiting = True


def find_process(k: Kernel, name: str) -> MmStruct | None:
    """The process of a name. No step."""
    look(k.swap, "processes")
    return k.processes.get(name)


def take_process(k: Kernel, mm: MmStruct) -> bool:
    """Let `mm` be the process of its name, which nobody can act as until `finish_fork`. Not where
    there is one that has mapped anything, or is at work, or is going away."""
    log = step(_TAKE_PROCESS, k.swap)
    old = k.processes.get(mm.name)
    taken = old is None or (
        not old.vmas and (old._users == 0 or (old._users == 1 and not old._exiting))
    )
    if old is not None:
        touch(old, "mm_users")
    if taken:
        mm._exiting = True
        k.processes[mm.name] = mm
    log.append(taken)
    return taken


def finish_fork(mm: MmStruct) -> None:
    step(_FINISH_FORK, mm)
    mm._exiting = False


class AnonVma:
    """struct anon_vma.

    _refcount: 1 while vmas hang on it, plus temporary holders; a root has one more for each that
    has it for a root. degree: 1, and 1 more for each direct child (a root is its own) and each vma
    but the first whose anon_vma it is. vmas: its interval
    tree, in walking order. rwsem: the root's serves the whole tree.
    """

    __slots__ = ("_refcount", "degree", "id", "machine", "parent", "root", "rwsem", "vmas")

    def __init__(self, machine: Machine, parent: AnonVma | None = None) -> None:
        self.machine = machine
        self._refcount = 1
        self.degree = 1
        self.vmas: list[VmAreaStruct] = []
        self.id = machine.register(self)
        self.parent: AnonVma = self if parent is None else parent
        self.root: AnonVma = self if parent is None else parent.root
        if parent is None:
            self.rwsem = RwSem(machine, ANON_VMA_RWSEM, f"anon_vma{self.id}")
        else:
            self.rwsem = parent.rwsem

    def label(self) -> str:
        return f"anon_vma{self.id}"


def mm_users(mm: MmStruct) -> int:
    step(_MM_USERS, mm).append(mm._users)
    return mm._users


def atomic_inc_anon_vma(anon_vma: AnonVma) -> None:
    log = step(_GET_ANON_VMA, anon_vma)
    anon_vma._refcount += 1
    log.append(anon_vma._refcount)


def atomic_inc_not_zero(anon_vma: AnonVma) -> bool:
    log = step(_INC_ANON_VMA, anon_vma)
    alive = anon_vma._refcount > 0
    anon_vma._refcount += alive
    log.append(alive)
    return alive


def atomic_dec_and_test(anon_vma: AnonVma) -> bool:
    log = step(_DEC_ANON_VMA, anon_vma)
    anon_vma._refcount -= 1
    log.append(anon_vma._refcount)
    return anon_vma._refcount == 0


class StableNode:
    """struct stable_node: what a KSM page's mapping points to, in place of an anon_vma.

    _page: the page its kpfn is the number of. items: the places that were merged, latest first;
    the page lock of that page protects them.
    """

    __slots__ = ("_page", "id", "items", "machine")

    def __init__(self, machine: Machine, page: Page) -> None:
        self.machine = machine
        self._page = page
        self.items: list[RmapItem] = []
        self.id: int = machine.register(self)

    def label(self) -> str:
        return f"stable_node{self.id}"

    @property
    def kpage(self) -> Page:
        """pfn_to_page(kpfn)."""
        step(_LOAD_KPFN, self).append(self._page.pfn)
        return self._page

    @kpage.setter
    def kpage(self, page: Page) -> None:
        step(_STORE_KPFN, self).append(page.pfn)
        self._page = page


class _NoStableNode(StableNode):
    """An object of no machine."""

    __slots__ = ()

    def __init__(self) -> None:
        self.id = -2
        self.items = []


# The mapping of a KSM page that has no stable node: not yet, or no more.
NO_STABLE_NODE: StableNode = _NoStableNode()


ANON = (AnonVma, StableNode)  # what the mapping of an anonymous page is one of


class RmapItem:
    """struct rmap_item: one address that ksmd has looked at. anon_vma: with a reference, and
    node: whose items it is among, once its page is merged."""

    __slots__ = ("address", "anon_vma", "mm", "node")

    def __init__(self, mm: MmStruct, address: int) -> None:
        self.mm = mm
        self.address = address
        self.anon_vma: AnonVma | None = None
        self.node: StableNode | None = None


class Ksm:
    """What mm/ksm.c keeps in globals. stable_tree: in order of insertion. rmap_items: by id of the
    address space and page number. mutex: ksm_thread_mutex, one ksmd works at a time."""

    __slots__ = ("mutex", "rmap_items", "stable_tree")

    def __init__(self, machine: Machine) -> None:
        self.mutex = Mutex(machine, KSM_THREAD_MUTEX, "ksm_thread_mutex")
        self.stable_tree: list[StableNode] = []
        self.rmap_items: dict[tuple[int, int], RmapItem] = {}


def same_content(page: Page, other: Page) -> bool:
    """memcmp of two pages. One step; of contents that keep still until it is over."""
    log = step(_LOAD_CONTENT, page)
    same = page._token == other._token
    log.append(same)
    return same


class BufferHead:
    """All buffers of one page (struct buffer_head), as one. lock: BH_Lock, a sleeping lock.
    _dirty: BH_Dirty."""

    __slots__ = ("_dirty", "id", "lock", "machine")

    def __init__(self, machine: Machine, dirty: bool) -> None:
        self.machine = machine
        self._dirty = dirty
        self.lock = Mutex(machine, BUFFER_LOCK, "buffer")
        self.id = machine.register(self)

    def label(self) -> str:
        return f"buffer{self.id}"


def buffer_dirty(buffer: BufferHead) -> bool:
    step(_LOAD_BUFFER_DIRTY, buffer).append(buffer._dirty)
    return buffer._dirty


def test_set_buffer_dirty(buffer: BufferHead) -> bool:
    log = step(_SET_BUFFER_DIRTY, buffer)
    was, buffer._dirty = buffer._dirty, True
    log.append(was)
    return was


def test_clear_buffer_dirty(buffer: BufferHead) -> bool:
    log = step(_CLEAR_BUFFER_DIRTY, buffer)
    was, buffer._dirty = buffer._dirty, False
    log.append(was)
    return was


TAG_DIRTY, TAG_WRITEBACK = "dirty", "writeback"


class AddressSpace:
    """struct address_space of one file, and the file; or the swap cache, which has no file.

    _page_tree: page by page offset; for tmpfs also the swap slot a page has gone to, as a number,
    for others SHADOW where one was reclaimed.
    _tags: the offsets with each tag. i_mmap: the vmas that map it, in walking order.
    shmem: tmpfs (swap-backed, writable ptes at once); all others but swap want to be told of the
    first write. accounts_dirty: its dirty pages are counted: ext2, fuse. has_migratepage: not
    ramfs, fuse. has_writepage: reclaim can write its pages.
    fs: what it is a file of: tmpfs, ext2, ramfs, fuse, aio; swap. ring: of an aio ring.
    _gfp_node: its pages are to be on this node or one below (mapping_set_gfp_mask), or -1.
    _i_size: pages. backing: what the disk has, token by offset.
    """

    __slots__ = (
        "_gfp_node",
        "_i_size",
        "_page_tree",
        "_tags",
        "_tree_version",
        "accounts_dirty",
        "backing",
        "fs",
        "has_migratepage",
        "has_writepage",
        "i_mmap",
        "i_mmap_rwsem",
        "i_mutex",
        "id",
        "machine",
        "name",
        "private_lock",
        "ring",
        "shmem",
        "tree_lock",
    )

    def __init__(
        self,
        machine: Machine,
        name: str,
        fs: str,
        *,
        i_size: int = 0,
    ) -> None:
        self.machine = machine
        self.name = name
        self.fs = fs
        self.shmem = fs == "tmpfs"
        self.accounts_dirty = fs in ("ext2", "fuse")
        self.has_migratepage = fs not in ("ramfs", "fuse")
        self.has_writepage = fs in ("swap", "tmpfs", "ext2", "fuse")
        self.ring: KioCtx | None = None
        self._gfp_node = -1
        self._i_size = i_size
        self._page_tree: dict[int, Page | int] = {}
        self._tags: dict[str, set[int]] = {TAG_DIRTY: set(), TAG_WRITEBACK: set()}
        self._tree_version = 0  # changes with every store, for those who wait for one
        self.backing: dict[int, int] = {}
        self.tree_lock = SpinLock(machine, TREE_LOCK, f"tree_lock@{name}")
        self.private_lock = SpinLock(machine, PRIVATE_LOCK, f"private_lock@{name}")
        self.i_mutex = Mutex(machine, I_MUTEX, f"i_mutex@{name}")
        self.i_mmap: list[VmAreaStruct] = []
        self.i_mmap_rwsem = RwSem(machine, I_MMAP_RWSEM, f"i_mmap_rwsem@{name}")
        self.id = machine.register(self)

    def label(self) -> str:
        return self.name

    @property
    def nrpages(self) -> int:
        """How many pages are cached; shadows and swap slots are not. Looked at without a step."""
        look(self, "page_tree")
        return sum(isinstance(entry, Page) for entry in self._page_tree.values())

    @property
    def gfp_node(self) -> int:
        step(_LOAD_GFP_NODE, self).append(self._gfp_node)
        return self._gfp_node

    @gfp_node.setter
    def gfp_node(self, value: int) -> None:
        step(_STORE_GFP_NODE, self).append(value)
        self._gfp_node = value

    @property
    def i_size(self) -> int:
        step(_LOAD_I_SIZE, self).append(self._i_size)
        return self._i_size

    @i_size.setter
    def i_size(self, value: int) -> None:
        step(_STORE_I_SIZE, self).append(value)
        self._i_size = value


class KioCtx:
    """struct kioctx: an asynchronous I/O context, as far as its ring of pages goes.

    pages: ring_pages, a reference held for each. mm: whose it is; it goes with the process."""

    __slots__ = ("completion_lock", "mm", "pages", "ring_lock")

    def __init__(self, mm: MmStruct) -> None:
        self.mm = mm
        self.pages: list[Page] = []
        self.ring_lock = Mutex(mm.machine, RING_LOCK, "ring_lock")
        self.completion_lock = SpinLock(mm.machine, COMPLETION_LOCK, "completion_lock")


def radix_tree_lookup(mapping: AddressSpace, index: int) -> Page | int | None:
    log = step(_LOAD_SLOT, mapping)
    page = mapping._page_tree.get(index)
    log.append(page.pfn if isinstance(page, Page) else -1 if page is None else -2 - page)
    return page


def radix_tree_store(mapping: AddressSpace, index: int, page: Page | int | None) -> None:
    """Fill or empty a slot. Replacing a page keeps the slot's tags; emptying it clears them."""
    log = step(_STORE_SLOT, mapping)
    log.append(index)
    log.append(page.pfn if isinstance(page, Page) else -1 if page is None else -2 - page)
    mapping._tree_version += 1
    if isinstance(page, Page):
        mapping._page_tree[index] = page
        return
    for tagged in mapping._tags.values():
        tagged.discard(index)
    if page is None:
        del mapping._page_tree[index]
    else:
        mapping._page_tree[index] = page


def radix_tree_tag(mapping: AddressSpace, index: int, tag: str, on: bool) -> None:
    """Set or clear a tag; tree_lock held."""
    log = step(_STORE_TAG, mapping)
    log.append(index)
    log.append(on)
    if on:
        mapping._tags[tag].add(index)
    else:
        mapping._tags[tag].discard(index)


def radix_tree_indices(mapping: AddressSpace, start: int, tag: str = "") -> list[int]:
    """The occupied slots from `start` on, or those with a tag (find_get_entries and its like)."""
    log = step(_LOAD_TAG, mapping)
    indices = sorted(
        index
        for index in mapping._page_tree
        if index >= start and (not tag or index in mapping._tags[tag])
    )
    log.append(len(indices))
    return indices


SWAP_SLOTS = 64
SHADOW = SWAP_SLOTS  # an exceptional entry of a file's tree, as swap slots are, but none of those
SWAP_HAS_CACHE = 0x40
SWAP_MAP_SHMEM = 0x3F
SWAP_MAP_MAX = 0x3E


class SwapInfo:
    """struct swap_info_struct: one swap device, slots 1 to `slots_count`.

    _swap_map: by slot, how many entries refer to it, SWAP_MAP_SHMEM for a file's, and
    SWAP_HAS_CACHE where a page in the swap cache has it. _map_version: changes with every store to
    it, for those who wait for one. backing: token by slot.
    """

    __slots__ = (
        "_map_version",
        "_swap_map",
        "backing",
        "id",
        "lock",
        "machine",
        "slots_count",
        "space",
    )

    def __init__(self, machine: Machine, slots_count: int) -> None:
        self.machine = machine
        self.slots_count = slots_count
        self._swap_map: dict[int, int] = {}
        self._map_version = 0  # changes with every store, for those who wait for one
        self.backing: dict[int, int] = {}
        self.lock = SpinLock(machine, SWAP_LOCK, "swap_lock")
        self.space = AddressSpace(machine, "swap_space", "swap")
        self.id = machine.register(self)

    def label(self) -> str:
        return "swap"


def swap_map(swap: SwapInfo, slot: int) -> int:
    """Count and SWAP_HAS_CACHE of a slot; 0: it is free. swap_lock held."""
    value = swap._swap_map.get(slot, 0)
    step(_LOAD_SWAP_MAP, swap).append(value)
    return value


def set_swap_map(swap: SwapInfo, slot: int, value: int) -> None:
    """swap_lock held."""
    log = step(_SWAP_MAP, swap)
    log.append(slot)
    log.append(value)
    swap._map_version += 1
    if value:
        swap._swap_map[slot] = value
    else:
        swap._swap_map.pop(slot, None)
        swap.backing.pop(slot, None)


MEMCGS_COUNT = 2


class Zone:
    """struct zone; one zone a node. `lists`: the LRU lists, head first; `stat`: exact counters.
    lru_size: how many pages of each list belong to each memory group: its number * NR_LRU_LISTS +
    the list.
    recent_scanned, recent_rotated: zone_reclaim_stat, of anonymous and of file pages."""

    __slots__ = (
        "free_pfns",
        "id",
        "lists",
        "lru_lock",
        "lru_size",
        "machine",
        "node",
        "recent_rotated",
        "recent_scanned",
        "stat",
    )

    def __init__(self, machine: Machine, node: int, pfns: range) -> None:
        self.machine = machine
        self.node = node
        self.lists: list[list[Page]] = [[] for _ in range(NR_LRU_LISTS)]
        self.lru_size = [0] * (NR_LRU_LISTS * (1 + MEMCGS_COUNT))
        self.stat = [0] * NR_ZONE_COUNTERS
        self.recent_scanned = [0, 0]
        self.recent_rotated = [0, 0]
        self.free_pfns = list(pfns)
        self.free_pfns.reverse()
        self.lru_lock = SpinLock(machine, LRU_LOCK, f"lru_lock@node{node}")
        self.id = machine.register(self)

    def label(self) -> str:
        return f"node{self.node}"


def list_add(page: Page, zone: Zone, lru: int) -> None:
    """Link at the head of an LRU list; lru_lock held."""
    step(_LRU_ADD, page).append(lru)
    zone.lists[lru].insert(0, page)


def list_del(page: Page, zone: Zone, lru: int) -> None:
    """Unlink from an LRU list, whichever it is on, as list_del() does; lru_lock held."""
    step(_LRU_DEL, page).append(lru)
    linked = [pages for pages in (zone.lists[lru], *zone.lists) if page in pages]
    if not linked:
        where = calling_function(1)
        raise KernelBug("bug-list-del", f"kernel BUG at {where}: list_del corruption", where)
    linked[0].remove(page)


def list_move_tail(page: Page, zone: Zone, lru: int) -> None:
    """Move to the tail of an LRU list it is on; lru_lock held."""
    step(_LRU_MOVE, page).append(lru)
    pages = zone.lists[lru]
    if page in pages:
        pages.remove(page)
    pages.append(page)


def take_free_page(k: Kernel, zone: Zone) -> Page | None:
    """Take a page off the zone's free list: one reference, all else clear. One step."""
    log = step(_TAKE_FREE, zone)
    if not zone.free_pfns:
        log.append(-1)
        return None
    pfn = zone.free_pfns.pop()
    log.append(pfn)
    return _hand_out(k, zone, pfn)


def _hand_out(k: Kernel, zone: Zone, pfn: int) -> Page:
    page = k.pages.get(pfn)
    if page is None:
        page = k.pages[pfn] = Page(k.machine, pfn, zone)
    touch(page)
    page._refcount = 1
    page._token = 0
    k.machine.note("page-allocated", page)
    return page


def take_top_free_page(k: Kernel, zone: Zone, above: int) -> Page | None:
    """Take the free page with the highest number, if that is above `above`. As take_free_page."""
    log = step(_TAKE_FREE, zone)
    pfn = max(zone.free_pfns, default=-1)
    if pfn <= above:
        log.append(-1)
        return None
    zone.free_pfns.remove(pfn)
    log.append(pfn)
    return _hand_out(k, zone, pfn)


def give_free_page(page: Page) -> None:
    """Wipe what may be left in a good page, and put it on the free list. One step."""
    step(_GIVE_FREE, page.zone).append(page.pfn)
    touch(page)
    page._flags = 0
    page._mapping = None
    page._private = 0
    page.cleared_mlocked = None
    page.zone.free_pfns.append(page.pfn)


HPAGE_PMD_NR = 512
HUGE_PAGES_A_NODE = 2


class Thp:
    """Memory for huge pages, beside the machine's other pages: some of each node, by pfn of the
    first. units: all of them, free or not."""

    __slots__ = ("free", "units")

    def __init__(self, k: Kernel) -> None:
        self.free: list[list[Page]] = [[] for _ in k.zones]
        self.units: set[int] = set()
        pfn = HPAGE_PMD_NR
        for zone in k.zones:
            for _ in range(HUGE_PAGES_A_NODE):
                while pfn in k.pages:
                    pfn += HPAGE_PMD_NR
                page = k.pages[pfn] = Page(k.machine, pfn, zone)
                self.free[zone.node].append(page)
                self.units.add(pfn)


def take_free_huge_page(k: Kernel, thp: Thp, zone: Zone) -> Page | None:
    """Take a huge page of a zone: one reference, all else clear. One step."""
    log = step(_TAKE_FREE_HUGE, zone)
    if not thp.free[zone.node]:
        log.append(-1)
        return None
    page = thp.free[zone.node].pop()
    log.append(page.pfn)
    touch(page)
    page._refcount = 1
    page._token = 0
    page.nr_pages = HPAGE_PMD_NR
    k.machine.note("page-allocated", page)
    return page


def give_free_huge_page(thp: Thp, page: Page) -> None:
    """Give back the memory of a huge page, split or not. One step."""
    step(_GIVE_FREE, page.zone).append(page.pfn)
    touch(page)
    page._flags = 0
    page._mapping = None
    page._private = 0
    page.nr_pages = 1
    page.cleared_mlocked = None
    thp.free[page.zone.node].append(page)


class Pagevec:
    """struct pagevec: up to 14 pages, a reference held for each. A CPU's own, or a local one.

    name: what it is for, `lru_add_pvec`."""

    __slots__ = ("cpu", "id", "machine", "name", "pages")

    def __init__(self, machine: Machine, name: str, cpu: int) -> None:
        self.machine = machine
        self.name = name
        self.cpu = cpu
        self.pages: list[Page] = []
        self.id = machine.register(self)

    def label(self) -> str:
        return f"{self.name}@cpu{self.cpu}"


def pagevec_add(pvec: Pagevec, page: Page) -> None:
    step(_PAGEVEC_ADD, pvec).append(page.pfn)
    pvec.pages.append(page)


def pagevec_count(pvec: Pagevec) -> int:
    step(_PAGEVEC_COUNT, pvec).append(len(pvec.pages))
    return len(pvec.pages)


def pagevec_reinit(pvec: Pagevec) -> None:
    """Empty a pagevec whose pages have had their references dropped."""
    step(_PAGEVEC_REINIT, pvec)
    pvec.pages = []


class Pool:
    """Pages set aside for migration by a user of migrate_pages with its own get_new_page and
    put_new_page. `members`: the page of each pool slot, for good; `free`: those to be handed out.
    """

    __slots__ = ("free", "id", "lock", "machine", "members")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.members: list[Page] = []
        self.free: list[Page] = []
        self.lock = SpinLock(machine, POOL_LOCK, "pool_lock")
        self.id = machine.register(self)

    def label(self) -> str:
        return "pool"


class BalloonDevInfo:
    """struct balloon_dev_info and struct virtio_balloon: pages given to the host.

    pages: its list, latest first. isolated_pages: taken off it to be migrated. num_pages: both.
    """

    __slots__ = (
        "balloon_lock",
        "id",
        "isolated_pages",
        "machine",
        "num_pages",
        "pages",
        "pages_lock",
    )

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.pages: list[Page] = []
        self.isolated_pages = 0
        self.num_pages = 0
        self.balloon_lock = Mutex(machine, BALLOON_LOCK, "balloon_lock")
        self.pages_lock = SpinLock(machine, BALLOON_PAGES_LOCK, "balloon_pages_lock")
        self.id = machine.register(self)

    def label(self) -> str:
        return "balloon"


HUGE_PAGES_A_NODE = 2
HUGE_POOL_PAGES = 1
HUGE_PFNS = 512  # a huge page begins at a multiple of this


class Hstate:
    """struct hstate: huge pages set aside, beside the machine's other pages; and a hugetlbfs file.

    free: of each node. pool: some more on the last node, for a user of migrate_pages.
    file: as many pages as a slot has.
    """

    __slots__ = ("fault_mutex", "file", "free", "id", "lock", "machine", "pool")

    def __init__(self, k: Kernel) -> None:
        machine = k.machine
        self.machine = machine
        self.lock = SpinLock(machine, HUGETLB_LOCK, "hugetlb_lock")
        self.fault_mutex = Mutex(machine, HUGETLB_FAULT_MUTEX, "hugetlb_fault_mutex")
        self.file = AddressSpace(machine, "hugetlbfs", "hugetlbfs", i_size=2)
        self.pool = Pool(machine)
        self.free: list[list[Page]] = [
            [_set_aside_huge_page(k, zone) for _ in range(HUGE_PAGES_A_NODE)] for zone in k.zones
        ]
        for _ in range(HUGE_POOL_PAGES):
            page = _set_aside_huge_page(k, k.zones[-1])
            page._refcount = 1
            self.pool.members.append(page)
            self.pool.free.append(page)
        self.id = machine.register(self)

    def label(self) -> str:
        return "hstate"


def _set_aside_huge_page(k: Kernel, zone: Zone) -> Page:
    pfn = HUGE_PFNS
    while pfn in k.pages:
        pfn += HUGE_PFNS
    page = k.pages[pfn] = Page(k.machine, pfn, zone)
    page._flags = PG_head
    return page


def take_huge_page(k: Kernel, hstate: Hstate, node: int) -> Page | None:
    """Take a huge page off a node's list: one reference, flags as they were left. One step."""
    log = step(_DEQUEUE_HUGE, hstate)
    if not hstate.free[node]:
        log.append(-1)
        return None
    page = hstate.free[node].pop()
    log.append(page.pfn)
    page._refcount = 1
    k.machine.note("page-allocated", page)
    return page


class Kernel:
    """All of it: what every function of kstate/mm is given as `k`.

    patches: what this kernel has; tested by the toggles. pages: every page that was ever used, by
    pfn. *_pvecs: one a CPU. events: vmstat event counters. tokens_count: writes so far, the last
    token given. dirtied: how often each task, by index, has had a page counted as dirtied.
    memcgs: M0, and M1 once it is used. current_mms: whose process each task, by index, is a thread
    of now (current->mm).
    balloon, hugetlb, ksm, thp: None until somebody asks for them.
    """

    __slots__ = (
        "activate_page_pvecs",
        "balloon",
        "current_mms",
        "dirtied",
        "events",
        "files",
        "hugetlb",
        "ksm",
        "lru_add_drain_mutex",
        "lru_add_pvecs",
        "lru_deactivate_file_pvecs",
        "lru_rotate_pvecs",
        "machine",
        "memcgs",
        "pages",
        "patches",
        "pool",
        "processes",
        "swap",
        "thp",
        "tokens_count",
        "zones",
    )

    def __init__(self, machine: Machine, patches: frozenset[str]) -> None:
        self.machine = machine
        self.patches = patches
        self.pages: dict[int, Page] = {}
        self.zones: list[Zone] = []
        self.lru_add_pvecs: list[Pagevec] = []
        self.lru_rotate_pvecs: list[Pagevec] = []
        self.lru_deactivate_file_pvecs: list[Pagevec] = []
        self.activate_page_pvecs: list[Pagevec] = []
        self.files: dict[str, AddressSpace] = {}
        self.processes: dict[str, MmStruct] = {}
        self.events: dict[str, int] = {}
        self.tokens_count = 0
        self.dirtied: dict[int, int] = {}
        self.current_mms: dict[int, MmStruct] = {}
        self.memcgs = [MemCgroup(machine, "M0", 1)]
        self.swap = SwapInfo(machine, SWAP_SLOTS)
        self.lru_add_drain_mutex = Mutex(machine, LRU_ADD_DRAIN_MUTEX, "lru_add_drain_all")
        self.pool = Pool(machine)
        self.balloon: BalloonDevInfo | None = None
        self.hugetlb: Hstate | None = None
        self.ksm: Ksm | None = None
        self.thp: Thp | None = None

    def forget(self) -> None:
        """Nobody will look at it again: see Machine.forget. Opens the circles of its structs."""
        for mm in self.processes.values():
            mm.vmas = []
            mm.ptes = {}
        for mapping in (*self.files.values(), self.swap.space):
            mapping.i_mmap = []
            mapping._page_tree = {}
        for zone in self.zones:
            zone.lists = []
        self.machine.forget()

    def count_vm_event(self, event: str, number: int = 1) -> None:
        self.events[event] = self.events.get(event, 0) + number


def take_pool_page(k: Kernel) -> None:
    """Set a page of the last zone aside for the pool, at boot. No step: nobody is there yet."""
    zone = k.zones[-1]
    pfn = zone.free_pfns.pop(0)
    page = k.pages[pfn] = Page(k.machine, pfn, zone)
    page._refcount = 1
    k.pool.members.append(page)
    k.pool.free.append(page)
