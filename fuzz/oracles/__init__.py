"""Oracles: claims about the kernel that can be false, one subject a file."""

from collections.abc import Iterable

from fuzz.oracles.base import Oracle, Snapshot
from fuzz.oracles.content import NoWriteIsLost, WritesAreSoftDirty
from fuzz.oracles.counters import (
    AnonVmaReferencesAreStructural,
    RssCountsPtes,
    SwapCountsAreReferences,
    ZoneCountersAreRecounts,
)
from fuzz.oracles.entries import MigrationEntryNamesALockedPage
from fuzz.oracles.lifetime import FreedThingsAreLeftAlone
from fuzz.oracles.lockorder import LocksAreTakenInOrder
from fuzz.oracles.lru import LruAgreesWithFlags
from fuzz.oracles.memcg import ChargesAreConserved, LruSizeIsRecount, MemcgStatIsRecount
from fuzz.oracles.migration import (
    AnonymousPageStaysAnonymous,
    FailedMigrationLeavesNewpageAlone,
    MigrationDirtiesNothing,
    MigrationMakesNoSwapEntry,
    PoolGetsItsPagesBack,
    UnusedNewpageIsPristine,
)
from fuzz.oracles.mlocked import (
    MigrationKeepsMlocked,
    MlockedPageIsMappedByALockedVma,
    NrMlockCountsMlockedPages,
    RmapWalkKeepsMlocked,
)
from fuzz.oracles.ptlfree import (
    MapcountIsRightWhenPtlIsFree,
    MappingsHaveReferences,
    RssIsRightWhenPtlIsFree,
)
from fuzz.oracles.refcount import MapcountIsNumberOfPtes, RefcountIsAccountedFor
from fuzz.oracles.tags import UnaccountedMappingHasNoDirtyTag

ORACLES: tuple[type[Oracle], ...] = (
    MlockedPageIsMappedByALockedVma,
    NrMlockCountsMlockedPages,
    MigrationKeepsMlocked,
    RmapWalkKeepsMlocked,
    RefcountIsAccountedFor,
    MapcountIsNumberOfPtes,
    LruAgreesWithFlags,
    MigrationEntryNamesALockedPage,
    MemcgStatIsRecount,
    ChargesAreConserved,
    LruSizeIsRecount,
    UnaccountedMappingHasNoDirtyTag,
    RssCountsPtes,
    ZoneCountersAreRecounts,
    SwapCountsAreReferences,
    AnonVmaReferencesAreStructural,
    MigrationDirtiesNothing,
    MigrationMakesNoSwapEntry,
    AnonymousPageStaysAnonymous,
    FailedMigrationLeavesNewpageAlone,
    PoolGetsItsPagesBack,
    UnusedNewpageIsPristine,
    NoWriteIsLost,
    WritesAreSoftDirty,
    FreedThingsAreLeftAlone,
)

# Those that cost too much to be asked of every run: lock order is a third of the run itself, and
# who observes sees every step. Asked by replay and by the diagram, of its corpus when a campaign
# ends, and of every run of a sample that names them.
SLOW_ORACLES: tuple[type[Oracle], ...] = (
    LocksAreTakenInOrder,
    MapcountIsRightWhenPtlIsFree,
    MappingsHaveReferences,
    RssIsRightWhenPtlIsFree,
)
ALL_ORACLES = (*ORACLES, *SLOW_ORACLES)
SLOW_IDS = frozenset(oracle.id for oracle in SLOW_ORACLES)


def and_slow(ids: Iterable[str]) -> tuple[type[Oracle], ...]:
    """The oracles of every run, and of the slow ones those that are named."""
    return (*ORACLES, *(oracle for oracle in SLOW_ORACLES if oracle.id in ids))


__all__ = [
    "ALL_ORACLES",
    "ORACLES",
    "SLOW_IDS",
    "SLOW_ORACLES",
    "Oracle",
    "Snapshot",
    "and_slow",
]
