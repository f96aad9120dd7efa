"""Oracles: claims about the kernel that can be false, one subject a file."""

from fuzz.oracles.base import Oracle, Snapshot
from fuzz.oracles.content import NoWriteIsLost, WritesAreSoftDirty
from fuzz.oracles.counters import (
    AnonVmaReferencesAreStructural,
    RssCountsPtes,
    ZoneCountersAreRecounts,
)
from fuzz.oracles.entries import MigrationEntryNamesALockedPage
from fuzz.oracles.lifetime import FreedThingsAreLeftAlone
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

__all__ = ["ORACLES", "Oracle", "Snapshot"]
