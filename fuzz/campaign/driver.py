"""Running campaigns: time and run limits, saving what is found at once, minimising it, progress."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from fuzz.campaign.campaign import Campaign
from fuzz.campaign.growth import Hit
from fuzz.campaign.portfolio import Yield
from fuzz.conflict import key
from fuzz.corpus import read_program
from fuzz.crash import add_odds, folder_name, holds, reproducer, save, write_atomically
from fuzz.minimise import minimise
from fuzz.oracles import SLOW_IDS, SLOW_ORACLES
from fuzz.prog.prog import ProgError, Program
from fuzz.prog.text import print_program
from fuzz.run import Outcome, run

MINIMISED_PER_ID = 3  # different crashes of one finding worth a folder of their own
STATUS_EVERY_S = 2.0
GC_THRESHOLD = 50_000
SEARCH_SHARE = 0.8  # of the time; the rest is for making reproducers smaller
SMALLER_SHARE = 0.1  # of the runs made while it searches may go into making reproducers smaller


@dataclass(frozen=True)
class Options:
    """What `kfuzz run` was asked for. time_s or runs_max ends it; None: no such limit."""

    kernel: str
    seed: int | str = 0
    time_s: float | None = None
    runs_max: int | None = None
    corpus: Path | None = None
    crashes: Path | None = None
    ignore: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()


@dataclass
class Status:
    """How far a campaign is. elapsed_s: wall clock, reports only. counts: hits by finding id.
    first_hit: (runs, seconds) of each id's first. strategies: what each took and found."""

    runs: int = 0
    elapsed_s: float = 0.0
    corpus: int = 0
    features: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first_hit: dict[str, tuple[int, float]] = field(default_factory=dict)
    strategies: dict[str, Yield] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A crash that has a folder. folder: None where none was asked for. minimised: smaller than it
    was found. replaces: the name of one told before that this is a smaller form of."""

    id: str
    name: str
    folder: Path | None
    program: Program
    minimised: bool
    replaces: str = ""


@dataclass(frozen=True)
class Failed:
    """A worker could not go on. error: why; what it had found is on disk."""

    seed: str
    error: Exception


@dataclass(frozen=True)
class Lost:
    """A worker was killed from outside. seed: of its campaign. What it had found is on disk."""

    seed: str


Event = Status | Found | Failed | Lost


class Driver:
    """Runs one campaign to its end, telling events as they happen."""

    def __init__(self, options: Options, initial: tuple[Program, ...] = ()) -> None:
        self.options = options
        self.campaign = Campaign(options.kernel, options.seed, initial)
        self.status = Status()
        self.stopped = False
        self._seen: set[str] = set()  # crashes met, as they were found
        self._kept: set[str] = set()  # names of those that have been made smaller
        self._mine: dict[Path, str] = {}  # folders that this campaign has written, and what
        self._best: dict[str, tuple[str, Program, Path | None]] = {}
        self._minimised: dict[str, int] = {}
        self._rough: deque[tuple[str, Program, Path | None]] = deque()
        self._smaller_runs = 0
        self._polished: list[tuple[str, Path]] = []
        self._written = 0
        self._started = time.monotonic()

    def stop(self) -> None:
        """Ask it to end soon: from a signal handler."""
        self.stopped = True

    def events(self) -> Iterator[Event]:
        """Run. Everything found is on disk before it is told."""
        gc.freeze()  # what is here stays; a run's own garbage is collected in bigger batches
        gc.set_threshold(GC_THRESHOLD)
        last = self._started
        while not self._over():
            for hit in self.campaign.round():
                yield from self._handle(hit)
                if self._over():
                    break
            self._save_corpus()
            if self._rough and self._smaller_runs < SMALLER_SHARE * self.campaign.runs:
                yield from self._make_smaller(*self._rough.popleft())
            now = time.monotonic()
            if now - last >= STATUS_EVERY_S:
                last = now
                yield self._refreshed()
        while self._rough:
            yield from self._make_smaller(*self._rough.popleft())
        yield from self._judge_corpus()
        for name, found in sorted(self._best.items()):
            if not self._out_of_time(1.0):
                yield from self._polish(name, found)
        for id, folder in self._polished:
            if not self._out_of_time(1.0):
                add_odds(folder, id, lambda: self._out_of_time(1.0))
        yield self._refreshed()

    def _over(self) -> bool:
        """Is the search to end? The last of the time is for making reproducers smaller."""
        runs_max = self.options.runs_max
        if runs_max is not None and self.campaign.runs >= runs_max:
            return True
        return self._out_of_time(SEARCH_SHARE)

    def _out_of_time(self, share: float) -> bool:
        if self.stopped:
            return True
        time_s = self.options.time_s
        return time_s is not None and time.monotonic() - self._started >= share * time_s

    def _refreshed(self) -> Status:
        status = self.status
        status.runs = self.campaign.runs
        status.elapsed_s = time.monotonic() - self._started
        status.corpus = len(self.campaign.corpus)
        status.features = len(self.campaign.counts)
        status.strategies = self.campaign.portfolio.yields()
        return status

    def _handle(self, hit: Hit) -> Iterator[Event]:
        options = self.options
        for finding in hit.outcome.findings:
            id = finding.id
            if id in options.ignore or (options.only and id not in options.only):
                continue
            status = self._refreshed()
            status.counts[id] = status.counts.get(id, 0) + 1
            status.first_hit.setdefault(id, (status.runs, status.elapsed_s))
            raw = key(hit.program, hit.outcome, finding)
            if self._minimised.get(id, 0) >= MINIMISED_PER_ID or f"{id}-{raw}" in self._seen:
                continue
            self._seen.add(f"{id}-{raw}")
            self._minimised[id] = self._minimised.get(id, 0) + 1
            yield from self._keep(reproducer(hit.program, hit.outcome, id), id)

    def _judge_corpus(self) -> Iterator[Event]:
        """Ask of each test in the corpus what is too slow to ask of every run. One that shows
        something is saved as it is: those who make reproducers smaller do not ask."""
        options = self.options
        for entry in self.campaign.corpus:
            if self._out_of_time(1.0):
                return
            outcome = run(entry.program, oracles=SLOW_ORACLES)
            ids = SLOW_IDS & outcome.ids - options.ignore
            for id in sorted(ids & options.only if options.only else ids):
                status = self._refreshed()
                status.counts[id] = status.counts.get(id, 0) + 1
                status.first_hit.setdefault(id, (status.runs, status.elapsed_s))
                name = folder_name(entry.program, outcome, id)
                if self._minimised.get(id, 0) >= MINIMISED_PER_ID or name in self._seen:
                    continue
                self._seen.add(name)
                self._minimised[id] = self._minimised.get(id, 0) + 1
                program = reproducer(entry.program, outcome, id)
                folder = self._save(program, outcome, id)
                yield Found(id, name, folder, program, True)

    def _save(self, program: Program, outcome: Outcome, id: str) -> Path | None:
        """Its folder, where there are any."""
        crashes = self.options.crashes
        if crashes is None:
            return None
        saved = save(crashes, program, outcome, id)
        if saved.written:
            self._mine[saved.folder] = print_program(program)
        return saved.folder

    def _remove(self, folder: Path | None) -> None:
        """A better form of what this campaign has put there is elsewhere."""
        wrote = self._mine.pop(folder, None) if folder is not None else None
        if folder is not None and wrote is not None and holds(folder, wrote):
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, program: Program, id: str) -> Iterator[Event]:
        """Save as found; it is made smaller when there is time."""
        rough = self._save(program, run(program), id)
        if rough is not None:
            yield Found(id, rough.name, rough, program, False)
        self._rough.append((id, program, rough))

    def _make_smaller(self, id: str, program: Program, rough: Path | None) -> Iterator[Event]:
        """Replace what was saved as found by what can be had without looking for schedules."""
        minimal = minimise(program, id, research=False, stop=lambda: self._out_of_time(1.0))
        if minimal is None:
            return
        self._smaller_runs += minimal.runs
        name = folder_name(minimal.program, minimal.outcome, id)
        if name in self._kept:  # another has been made into the same
            _, best, folder = self._best[name]
        else:
            self._kept.add(name)
            best, folder = minimal.program, self._save(minimal.program, minimal.outcome, id)
            self._best[name] = id, best, folder
        if rough != folder:
            self._remove(rough)
        replaces = rough.name if rough is not None and rough != folder else ""
        yield Found(id, folder.name if folder else name, folder, best, True, replaces)

    def _polish(self, name: str, best: tuple[str, Program, Path | None]) -> Iterator[Event]:
        """Make a reproducer smaller with all means: also by looking for other schedules."""
        id, program, folder = best
        stop = lambda: self._out_of_time(1.0)  # noqa: E731
        minimal = minimise(program, id, research=True, stop=stop)
        if minimal is None or minimal.program == program:
            if folder is not None:
                self._polished.append((id, folder))
            return
        before = folder.name if folder else name
        if folder is not None:
            saved = self._save(minimal.program, minimal.outcome, id)
            assert saved is not None
            if saved != folder:
                self._remove(folder)
            folder = saved
            self._polished.append((id, folder))
        better = folder.name if folder else folder_name(minimal.program, minimal.outcome, id)
        yield Found(id, better, folder, minimal.program, True, before)

    def _save_corpus(self) -> None:
        corpus = self.options.corpus
        if corpus is None:
            return
        for entry in self.campaign.corpus[self._written :]:
            text = print_program(entry.program)
            name = sha256(text.encode()).hexdigest()[:8]
            corpus.mkdir(parents=True, exist_ok=True)
            write_atomically(corpus / f"{name}.prog", text)
        self._written = len(self.campaign.corpus)


def load_corpus(folder: Path, complain: Callable[[str], None]) -> tuple[Program, ...]:
    """Every program of a folder, by name. A bad file is complained about and left out."""
    programs = []
    for path in sorted(path for path in folder.glob("*.prog") if not path.is_fifo()):
        try:
            programs.append(read_program(path))
        except ProgError as error:
            complain(error.at(str(path)))
        except OSError as error:
            complain(f"{path}: {error.strerror}")
    return tuple(programs)


def check_writable(folder: Path) -> None:
    """Raises OSError now rather than after an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe.{os.getpid()}"
    probe.touch()
    probe.unlink()
