"""`kfuzz bench frontrun`: 2b-i as a plain class of two threads, searched by the package frontrun
(the extra `bench`) and by our own explore, in one run.

Two munlocks of one page that two vmas lock: each clears VM_LOCKED of its own, takes PageMlocked
away, looks whether the other vma still wants the page, and gives it back then. Without the pte lock
around it, the last may give it back when nobody wants it any more: the leak.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzz.explore import EXHAUSTED, REFUTED, explore
from fuzz.subject import MachineSubject
from kstate.machine import Machine, Mutex, MutexClass, Word, load, mutex_lock, mutex_unlock, store

Record = dict[str, Any]
WARM_RUNS = 3
REPEATS = 5
TARGET = 50
PTE_LOCK = MutexClass("pte_lock")


class NotInstalled(Exception):
    """What a bench compares with is not there."""


class MlockedPage:
    """The page and its two vmas, in plain Python."""

    def __init__(self) -> None:
        self.first_locked = self.second_locked = True
        self.mlocked = True
        self.pte_lock = threading.Lock()

    def munlock_first(self) -> None:
        self.first_locked = False
        if self.mlocked:
            self.mlocked = False
            if self.second_locked:
                self.mlocked = True

    def munlock_second(self) -> None:
        self.second_locked = False
        if self.mlocked:
            self.mlocked = False
            if self.first_locked:
                self.mlocked = True

    def munlock_first_under_lock(self) -> None:
        with self.pte_lock:
            self.munlock_first()

    def munlock_second_under_lock(self) -> None:
        with self.pte_lock:
            self.munlock_second()

    def is_wanted_or_not_mlocked(self) -> bool:
        return not self.mlocked or self.first_locked or self.second_locked


def on_the_machine(under_lock: bool) -> Callable[[Machine], Callable[[], None]]:
    """The same, statement by statement, against kstate.machine."""

    def setup(m: Machine) -> Callable[[], None]:
        first, second, mlocked = (Word(m, name, 1) for name in ("first", "second", "mlocked"))
        lock = Mutex(m, PTE_LOCK, "pte_lock")

        def munlock(mine: Word, other: Word) -> None:
            if under_lock:
                mutex_lock(lock)
            store(mine, 0)
            if load(mlocked):
                store(mlocked, 0)
                if load(other):
                    store(mlocked, 1)
            if under_lock:
                mutex_unlock(lock)

        def init() -> None:
            m.join(*m.spawn(lambda: munlock(first, second), lambda: munlock(second, first)))
            assert not mlocked.peek() or first.peek() or second.peek()

        return init

    return setup


CASES = tuple((under_lock, bound) for under_lock in (False, True) for bound in (2, None))


def compare() -> Iterator[Record]:
    """Both tools, both variants, all schedules and 2 preemptions, the best of some runs.

    frontrun has to be started by its own command, so its part is a process of its own.
    Raises: NotInstalled."""
    if find_spec("frontrun") is None:
        raise NotInstalled("frontrun is not installed: pip install 'kstate-fuzz[bench]'")
    command = Path(sys.executable).with_name("frontrun")
    with subprocess.Popen(
        [command, sys.executable, "-m", "fuzz.bench_frontrun"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for under_lock, preemptions in CASES:
            theirs = json.loads(process.stdout.readline())
            ours = _best(lambda u=under_lock, p=preemptions: _ours(u, p))  # type: ignore[misc]
            ratio = ours["schedules_per_second"] / theirs["schedules_per_second"]
            yield ours
            yield theirs
            yield {
                "what": ours["what"],
                "times_its_rate": round(ratio, 1),
                "target": TARGET,
                "ok": ratio >= TARGET and ours["right"],
            }


def theirs_alone() -> None:
    for under_lock, preemptions in CASES:
        measured = _best(lambda u=under_lock, p=preemptions: _theirs(u, p))  # type: ignore[misc]
        print(json.dumps(measured), flush=True)


def _best(measure: Callable[[], Record]) -> Record:
    for _ in range(WARM_RUNS):
        measure()
    return min((measure() for _ in range(REPEATS)), key=lambda record: float(record["seconds"]))


def _record(
    tool: str, what: str, schedules: int, seconds: float, holds: bool, right: bool
) -> Record:
    return {
        "what": what,
        "tool": tool,
        "schedules": schedules,
        "seconds": round(seconds, 6),
        "schedules_per_second": round(schedules / seconds),
        "verdict": "holds" if holds else "refuted",
        "right": right,
    }


def _what(under_lock: bool, preemptions: int | None) -> str:
    lock = "with pte lock" if under_lock else "without pte lock"
    return f"{lock}, {'all schedules' if preemptions is None else f'{preemptions} preemptions'}"


def _ours(under_lock: bool, preemptions: int | None) -> Record:
    started = time.perf_counter()
    found = explore(MachineSubject(on_the_machine(under_lock)), preemptions=preemptions)
    seconds = time.perf_counter() - started
    right = found.verdict == (EXHAUSTED if under_lock else REFUTED)
    name = "kfuzz explore"
    holds = found.verdict == EXHAUSTED
    return _record(name, _what(under_lock, preemptions), found.schedules, seconds, holds, right)


def _theirs(under_lock: bool, preemptions: int | None) -> Record:
    import frontrun

    if under_lock:
        workers = [MlockedPage.munlock_first_under_lock, MlockedPage.munlock_second_under_lock]
    else:
        workers = [MlockedPage.munlock_first, MlockedPage.munlock_second]
    started = time.perf_counter()
    found = frontrun.explore(
        setup=MlockedPage,
        workers=workers,
        invariant=MlockedPage.is_wanted_or_not_mlocked,
        preemption_bound=preemptions,
        stop_on_first=False,
        reproduce_on_failure=0,
        detect_io=False,
        trace_packages=["fuzz"],
    )
    seconds = time.perf_counter() - started
    holds = bool(found.property_holds)
    what = _what(under_lock, preemptions)
    return _record("frontrun", what, found.num_explored, seconds, holds, holds == under_lock)


if __name__ == "__main__":
    theirs_alone()
