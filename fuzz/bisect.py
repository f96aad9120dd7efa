"""Which patch of the series makes a finding vanish, or appear? `kfuzz bisect`.

The program's schedule, as turns, is replayed on v4.3 with P01..Pk for k = 0..12, and then with what
else came with v4.4, one after another. Where that does not show the finding, whether the schedule
was left or was followed to its end, all schedules with a few preemptions are searched instead: one
schedule that misses is no evidence of absence, and one that could not even be followed is none at
all. A kernel lacks the finding only within that bound; whether so small a search finds it where it
is known to be is told beside it.

Commits that v4.3 and v4.4 share are taken out of v4.3, those that came later are put on v4.4, each
by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fuzz.explore import EXHAUSTED, REFUTED, Exploration, explore
from fuzz.oracles import SLOW_IDS
from fuzz.prog.prog import Program
from fuzz.run import Outcome, run
from fuzz.turns import write_down
from kstate.patches import (
    BY_TOGGLE,
    CAME_WITH_V44,
    SERIES,
    TABLE,
    Patch,
    SpecError,
    parse_spec,
)

SHOWN, ABSENT, UNKNOWN, SKIPPED = "shown", "absent", "unknown", "skipped"
OLDER, IN_SERIES, LATER = "older", "series", "later"
RUNS_MAX = 50_000
COMMIT = re.compile(r"[0-9a-f]{12}|fix:.*")


@dataclass(frozen=True)
class Row:
    """One kernel. part: OLDER, IN_SERIES or LATER. patch: what sets it apart from the kernel it is
    compared with, None for v4.3 itself. verdict: SHOWN, ABSENT (within the bound of the search),
    UNKNOWN (the search was cut short) or SKIPPED. how: in words. followed: of the schedule's turns;
    None where it was not replayed. search: its verdict and bound, or None."""

    part: str
    kernel: str
    patch: Patch | None
    verdict: str
    how: str
    followed: int | None = None
    search: str | None = None


@dataclass(frozen=True)
class Change:
    """Two neighbouring kernels of which one shows the finding. `patch`: what they differ by;
    `between`: patches whose kernels are unknown or skipped, any of which may be meant instead."""

    shown: bool
    kernel: str
    patch: Patch
    between: tuple[str, ...]

    def __str__(self) -> str:
        first = "with" if self.shown else "without"
        line = f"first kernel {first} it: {self.kernel} ({self.patch.name} {self.patch.subject})"
        if self.between:
            line += f"; or it was {' or '.join(self.between)}, which could not be told"
        return line


@dataclass(frozen=True)
class Subject:
    """What is bisected. program: with its schedule as turns. home: a kernel that shows it.
    extras: what home has beyond the series, kept on every kernel."""

    program: Program
    id: str
    home: str
    extras: str


class NothingShown(ValueError):
    """The program does not show the finding where it should."""


def subject_of(program: Program, id: str | None = None) -> Subject:
    """Find out what a program shows, and where.

    Args:
        id: the finding; by default the first one it expects, else the first one it shows.
    Raises:
        NothingShown: on none of the kernels it names.
    """
    wanted = [expect for expect in program.expects if not expect.absent]
    id = id or (wanted[0].id if wanted else None)
    if id in SLOW_IDS:
        raise NothingShown(f"{id} is not asked of the runs of a search: see 'kfuzz replay'")
    kernels = [program.kernel, *(expect.kernel for expect in wanted if expect.id == id)]
    for kernel in dict.fromkeys(parse_spec(kernel).text for kernel in kernels):
        outcome = run(program, kernel)
        if outcome.findings and id is None:
            id = outcome.findings[0].id
        if id in outcome.ids:
            return Subject(_as_turns(program, outcome), id, kernel, _extras(kernel))
    raise NothingShown(f"shows {id or 'nothing'} on none of {', '.join(dict.fromkeys(kernels))}")


def _as_turns(program: Program, outcome: Outcome) -> Program:
    if program.schedule is not None:
        return program
    return replace(
        program,
        schedule=write_down(outcome),
        choices=None,
        faults=tuple(outcome.machine.faults_taken),
    )


def _extras(kernel: str) -> str:
    """`+70feee0e1ef3-e6c509f85455`: how a kernel differs, but for what came with v4.4."""
    toggles = parse_spec(kernel).toggles - set(SERIES) - set(CAME_WITH_V44)
    base = parse_spec("v4.3").toggles
    more = [f"+{BY_TOGGLE[t].name if t in BY_TOGGLE else t}" for t in sorted(toggles - base)]
    less = [f"-{BY_TOGGLE[toggle].name}" for toggle in sorted(base - toggles)]
    return "".join(more + less)


def bisect(subject: Subject, preemptions: int = 1, runs_max: int = RUNS_MAX) -> Iterator[Row]:
    """A row for each kernel, in order: older commits out, the series, later commits on top."""
    for patch in TABLE:
        if patch.base == "both" and patch.modelled and f"-{patch.name}" not in subject.extras:
            kernel = f"v4.3{subject.extras}-{patch.name}"
            yield _row(subject, OLDER, kernel, patch, preemptions, runs_max)
    kernel = f"v4.3{subject.extras}"
    last = _row(subject, IN_SERIES, kernel, None, preemptions, runs_max)
    yield last
    for toggle in (*SERIES, *CAME_WITH_V44):
        patch = BY_TOGGLE[toggle]
        if not patch.modelled:
            yield Row(IN_SERIES, kernel, patch, SKIPPED, "not modelled yet")
            continue
        kernel += f"+{patch.name}"
        if patch.behaviour or last.verdict == SKIPPED:
            last = _row(subject, IN_SERIES, kernel, patch, preemptions, runs_max)
        else:
            last = replace(last, kernel=_spelled(kernel), patch=patch, how="text only")
        yield last
    for patch in TABLE:
        later = patch.base == "neither" and patch.modelled and COMMIT.fullmatch(patch.name)
        if later and f"+{patch.name}" not in subject.extras:
            kernel = f"v4.4{subject.extras}+{patch.name}"
            yield _row(subject, LATER, kernel, patch, preemptions, runs_max)


def _row(
    subject: Subject, part: str, kernel: str, patch: Patch | None, preemptions: int, runs_max: int
) -> Row:
    try:
        spec = _spelled(kernel)
    except SpecError as error:
        return Row(part, kernel, patch, SKIPPED, str(error).partition(": ")[2])
    outcome = run(subject.program, spec)
    turns = len(subject.program.schedule or ())
    followed = turns if outcome.diverged is None else outcome.diverged.turn
    how = f"followed {followed} of {turns} turns" if turns else "default run"
    if subject.id in outcome.ids:
        return Row(part, spec, patch, SHOWN, how, followed)
    found = search(subject, spec, preemptions, runs_max)
    verdict = {REFUTED: SHOWN, EXHAUSTED: ABSENT}.get(found.verdict, UNKNOWN)
    how += f"; search: {found}"
    return Row(part, spec, patch, verdict, how, followed, str(found))


def _spelled(kernel: str) -> str:
    """Its name: from v4.4 where it has all of the series, else from v4.3."""
    spec, full = parse_spec(kernel), parse_spec("v4.4")
    if not full.toggles & set(SERIES) <= spec.toggles:
        return spec.text
    items = ""
    for toggle in sorted(full.toggles ^ spec.toggles):
        sign = "+" if toggle in spec.toggles else "-"
        items += sign + (BY_TOGGLE[toggle].name if toggle in BY_TOGGLE else toggle)
    return parse_spec(f"v4.4{items}").text


def search(subject: Subject, kernel: str, preemptions: int, runs_max: int) -> Exploration:
    """Look for the finding under all schedules with so many preemptions."""
    return explore(
        subject.program,
        kernel,
        preemptions=preemptions,
        only=subject.id,
        runs_max=runs_max,
        stop_at_first=True,
    )


def changes(rows: list[Row]) -> list[Change]:
    """Where the finding comes and goes along the series."""
    found: list[Change] = []
    last: Row | None = None
    between: list[str] = []
    for row in rows:
        if row.part != IN_SERIES:
            continue
        if row.verdict not in (SHOWN, ABSENT):
            # A patch that is not modelled makes no difference here; an unknown kernel may.
            if row.patch is not None and row.verdict == UNKNOWN:
                between.append(row.patch.name)
            continue
        if last is not None and row.patch is not None and last.verdict != row.verdict:
            found.append(Change(row.verdict == SHOWN, row.kernel, row.patch, tuple(between)))
        last, between = row, []
    return found


def effects(rows: list[Row]) -> list[str]:
    """What the commits outside the series do, in words."""
    by_kernel = {row.kernel: row for row in rows if row.part == IN_SERIES}
    series = list(by_kernel.values())
    if not series:
        return []
    said = []
    for row in rows:
        against = series[0] if row.part == OLDER else series[-1]
        if row.part == IN_SERIES or {row.verdict, against.verdict} != {SHOWN, ABSENT}:
            continue
        assert row.patch is not None
        shown = "shown" if row.verdict == SHOWN else "absent"
        said.append(
            f"{shown} on {row.kernel}, unlike {against.kernel} "
            f"({row.patch.name} {row.patch.subject})"
        )
    return said
