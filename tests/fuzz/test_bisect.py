"""Which patch makes a finding vanish: the verdicts, and what they do not say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from fuzz.bisect import (
    ABSENT,
    IN_SERIES,
    SHOWN,
    SKIPPED,
    UNKNOWN,
    Change,
    NothingShown,
    Row,
    bisect,
    changes,
    effects,
    subject_of,
)
from fuzz.corpus import races_folder, read_program
from fuzz.prog.prog import UNTIL, Program, TurnSpec
from kstate.patches import BY_NAME, CAME_WITH_V44, SERIES, TABLE

RACES = races_folder()
NEVER = TurnSpec(0, UNTIL, "mm/nowhere.py:nothing spin_lock(ptl)")


def race(name: str) -> Program:
    return read_program(RACES / f"{name}.prog")


def rows(program: Program, **limits: int) -> list[Row]:
    return list(bisect(subject_of(program), **limits))


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("2b-i-munlock", "P02"),
        ("2c", "P02"),
        ("2d", "P02"),
        ("3a", "P03"),
        ("7a", "P07"),
        ("x-clear-refs", "fix:clear-refs-pte"),
        ("x-ksm-vma", "fix:ksm-mergeable-vma"),
    ],
)
def test_the_patch_that_ends_a_race_is_named(name: str, patch: str) -> None:
    found = rows(race(name))
    (change,) = changes(found)
    assert not change.shown
    assert change.patch.name == patch
    assert change.kernel.endswith(f"+{patch}") or patch.startswith("fix:")
    assert change.between == ()
    assert BY_NAME[patch].subject in str(change)
    assert next(row.verdict for row in found if row.part == IN_SERIES) == SHOWN


def test_a_row_for_every_patch_and_the_last_one_is_v44() -> None:
    series = [row for row in rows(race("2d")) if row.part == IN_SERIES]
    steps = [row.patch.toggle for row in series if row.patch]
    assert steps == [*SERIES, *CAME_WITH_V44]
    assert series[0].kernel == "v4.3"
    assert series[-1].kernel == "v4.4"
    modelled = {patch.name for patch in TABLE if patch.modelled}
    for row in series[1:]:
        assert row.patch is not None
        assert (row.verdict == SKIPPED) == (row.patch.name not in modelled)
        if not row.patch.behaviour:
            assert row.how == "text only"


def test_commits_before_and_after_are_judged_by_themselves() -> None:
    """3a is what e6c509f85455 did; X1 is what 70feee0e1ef3 ended, and no patch of the series."""
    (before,) = [line for line in effects(rows(race("3a"))) if "e6c509f85455" in line]
    assert before.startswith("absent on v4.3-e6c509f85455, unlike v4.3 (")
    found = rows(race("x1"))
    assert changes(found) == []
    (after,) = [line for line in effects(found) if "70feee0e1ef3" in line]
    assert after.startswith("absent on v4.4+70feee0e1ef3, unlike v4.4 (")


def test_a_schedule_that_is_left_is_no_evidence_a_search_decides() -> None:
    """With a turn that can never be followed, and so with all turns dropped, the default run shows
    nothing on any kernel; X1 is there all the same, and the search finds it."""
    program = race("x1")
    subject = subject_of(program)
    subject = replace(subject, program=replace(program, schedule=(NEVER,)))
    found = [row for row in bisect(subject) if row.part == IN_SERIES and row.patch]
    judged = [row for row in found if row.verdict != SKIPPED]
    assert {row.verdict for row in judged} == {SHOWN}
    assert {row.followed for row in judged} == {0}
    assert all(row.search and row.search.startswith("REFUTED") for row in judged)


def test_a_search_that_is_cut_short_leaves_it_unknown() -> None:
    found = rows(race("2b-i-munlock"), runs_max=3)
    verdicts = {row.patch.name: row.verdict for row in found if row.part == IN_SERIES and row.patch}
    assert verdicts["P01"] == SHOWN
    assert verdicts["P02"] == verdicts["P12"] == UNKNOWN
    assert changes(found) == []


def test_a_change_says_what_could_not_be_told() -> None:
    def row(name: str, verdict: str) -> Row:
        return Row(IN_SERIES, f"v4.3+{name}", BY_NAME[name], verdict, "")

    first = Row(IN_SERIES, "v4.3", None, ABSENT, "")
    found = changes([first, row("P02", UNKNOWN), row("P03", SHOWN), row("P06", ABSENT)])
    assert found == [
        Change(True, "v4.3+P03", BY_NAME["P03"], ("P02",)),
        Change(False, "v4.3+P06", BY_NAME["P06"], ()),
    ]
    assert "first kernel with it" in str(found[0])
    assert "or it was P02, which could not be told" in str(found[0])


def test_what_the_kernel_of_the_file_has_beyond_the_series_stays() -> None:
    """A mutant that needs P07 has no kernel before it."""
    program = replace(race("x1"), kernel="v4.4+mutant:7c", expects=())
    subject = subject_of(program)
    assert subject.extras == "+mutant:7c"
    found = {row.patch.name: row for row in bisect(subject) if row.part == IN_SERIES and row.patch}
    assert found["P06"].verdict == SKIPPED
    assert "requires P07" in found["P06"].how
    assert found["P07"].verdict == SHOWN
    assert found["fix:ksm-stale-node"].kernel == "v4.4+mutant:7c"


def test_what_shows_nothing_cannot_be_bisected() -> None:
    with pytest.raises(NothingShown, match=r"shows deadlock on none of v4[.]3"):
        subject_of(race("2d"), "deadlock")
    with pytest.raises(NothingShown, match="not asked of the runs of a search"):
        subject_of(race("2d"), "lock-order")


def test_the_command_says_it_in_text_and_json() -> None:
    command = [sys.executable, "-m", "fuzz", "bisect", str(RACES / "7a.prog")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.startswith("bug-newpage-trylock, shown on v4.3\n")
    assert "\nfirst kernel without it: v4.3+P01+" in text
    assert "(P07 mm: page migration trylock newpage at same level as oldpage)" in text
    assert "within that bound, in which the search does find it on v4.3" in text
    lines = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    *kernels, summary = map(json.loads, lines)
    assert {record["event"] for record in kernels} == {"kernel"}
    assert [change["patch"] for change in summary["changes"]] == ["P07"]
    assert summary["search_finds_it"] is True
    short = subprocess.run([*command, "--runs", "2"], capture_output=True, text=True, check=False)
    assert short.returncode == 3
    only = subprocess.run(
        [*command, "--only", "deadlock"], capture_output=True, text=True, check=False
    )
    assert (only.returncode, only.stdout) == (2, "")
    assert "shows deadlock on none of" in only.stderr


def test_it_says_where_so_small_a_search_says_little() -> None:
    """2b-i/reclaim takes more than one preemption."""
    path = RACES / "2b-i-reclaim.prog"
    command = [sys.executable, "-m", "fuzz", "bisect", str(path), "--preemptions", "0"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "absent says little" in text
    assert "try --preemptions 1" in text
