"""Campaigns, minimisation and crash folders."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz import crash
from fuzz.campaign.driver import SMALLER_SHARE, Driver, Found, Options
from fuzz.corpus import races_folder, read_program
from fuzz.explore import explore
from fuzz.minimise import _Search, _smaller, minimise, size
from fuzz.oracles import and_slow, lockorder
from fuzz.prog import parse, print_program
from fuzz.prog.generate import generate
from fuzz.prog.mutate import mutate
from fuzz.replay import replay_file
from fuzz.run import run
from fuzz.sample import sample
from fuzz.schedulers import Profile, expand, make_scheduler
from fuzz.turns import write_down
from kstate.patches import CLEAN


def test_a_campaign_from_nothing_finds_races_and_every_folder_replays(tmp_path: Path) -> None:
    """The seed and the number of runs are fixed, so what it finds is too."""
    driver = Driver(Options("v4.3", 1, runs_max=13_000, crashes=tmp_path))
    found = [event for event in driver.events() if isinstance(event, Found)]
    expected = {"mlocked-page-leak", "bug-newpage-trylock", "nr-mlock-mismatch"}
    assert expected <= set(driver.status.counts)
    folders = sorted(path for path in tmp_path.iterdir())
    assert folders
    replaced = {event.replaces for event in found if event.replaces}
    last = {event.name: event.folder for event in found if event.minimised}
    assert {folder for name, folder in last.items() if name not in replaced} <= set(folders)
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == ["report.txt", "repro.prog"]
        program = read_program(folder / "repro.prog")
        for _ in range(100):
            (result,) = replay_file(program)
            assert result.expected is True
            assert result.outcome.diverged is None
        assert folder.name.startswith(program.expects[0].id)


def test_making_reproducers_smaller_takes_its_share_of_the_runs_and_no_more(tmp_path: Path) -> None:
    driver = Driver(Options("v4.3", 3, runs_max=3000, crashes=tmp_path))
    spent, during, after = 0, 0, 0
    smaller: set[str] = set()  # what replaces one of these has been made smaller with all means
    for event in driver.events():
        if isinstance(event, Found) and event.minimised and event.replaces not in smaller:
            smaller.add(event.name)
            if driver.campaign.runs < 3000:
                assert spent < SMALLER_SHARE * driver.campaign.runs
                during += 1
            else:
                after += 1
        spent = driver._smaller_runs
    assert during
    assert after


def test_a_run_that_was_let_go_leaves_nothing_to_the_garbage_collector() -> None:
    program = read_program(races_folder() / "2b-i-munlock.prog")
    for _ in range(2):  # the first meets points that stay
        gc.collect()
        gc.disable()
        outcome = run(program, CLEAN)
        assert not outcome.findings
        outcome.let_go()
        del outcome
        left = gc.collect()
        gc.enable()
    assert left == 0


def grown() -> tuple[str, str]:
    """2b-i with operations that do not matter."""
    text = (races_folder() / "2b-i-munlock.prog").read_text()
    text = text.replace("init:\n", "init:\n  A map 1 anon\n  B map 2 ext2_shared\n  B read 2.1\n")
    return text.replace("  B munlock 0.0 +1\n", "  B munlock 0.0 +1\n  B read 2.0\n"), (
        "mlocked-page-leak"
    )


def test_minimising_gives_back_the_core_and_stops_at_a_local_minimum() -> None:
    text, id = grown()
    program = parse(text)
    assert id in run(program).ids
    minimal = minimise(program, id)
    assert minimal is not None
    assert minimal.program.operations_count() == 6
    assert minimal.program.size.zones == 1
    assert id in run(minimal.program).ids
    again = minimise(minimal.program, id)
    assert again is not None
    assert replace(again.program, comments=()) == replace(minimal.program, comments=())
    for candidate in _smaller(minimal.program):
        outcome = run(candidate)
        if id in outcome.ids:
            shown = replace(candidate, schedule=write_down(outcome))
            assert size(shown, outcome) >= size(minimal.program, minimal.outcome)


def test_the_minimiser_asks_no_candidate_twice() -> None:
    text, id = grown()
    search = _Search(id, lambda: False)
    program = parse(text)
    assert search.shows(program) is not None
    assert search.shows(program) is None
    assert search.runs == 1


def test_minimising_what_shows_nothing_gives_nothing() -> None:
    assert minimise(parse(grown()[0]), "deadlock") is None


def test_a_better_reproducer_replaces_the_old_one_and_a_worse_one_does_not(tmp_path: Path) -> None:
    text, id = grown()
    big = replace(parse(text), kernel="v4.3")
    minimal = minimise(big, id)
    assert minimal is not None
    rough = crash.reproducer(big, run(big), id)
    first = crash.save(tmp_path, rough, run(big), id)
    second = crash.save(tmp_path, minimal.program, minimal.outcome, id)
    assert first == second == crash.Saved(first.folder, True)
    repro = first.folder / "repro.prog"
    kept = repro.read_text()
    assert parse(kept) == minimal.program
    assert not crash.save(tmp_path, rough, run(big), id).written
    assert repro.read_text() == kept
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]
    # What is there but does not show it is no better, however small.
    for worthless in ("kfuzz 1\nkernel: v4.3\nmachine: cpus=1\n", "", "choices: bogus | |"):
        repro.write_text(worthless)
        assert crash.save(tmp_path, minimal.program, minimal.outcome, id).written
        assert repro.read_text() == kept


def test_a_reproducer_of_another_kernel_stays_where_it_is(tmp_path: Path) -> None:
    text, id = grown()
    folders = {}
    for kernel in ("v4.3", "v4.3+P06", "v4.3"):
        program = replace(parse(text), kernel=kernel)
        minimal = minimise(program, id)
        assert minimal is not None
        folder = crash.save(tmp_path, minimal.program, minimal.outcome, id).folder
        assert parse((folder / "repro.prog").read_text()).kernel == kernel
        folders[kernel] = folder.name
    assert folders["v4.3+P06"] == folders["v4.3"] + "+v4.3+P06"


def test_a_reproducer_of_what_is_slow_to_ask_stays_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lock-order is not asked of every run; a folder of it is."""
    id = "lock-order"
    monkeypatch.setattr(lockorder, "NESTINGS", ())
    program = read_program(races_folder() / "4-charges-splice.prog")
    for kernel, folders in (("v4.4", 1), ("v4.3", 2), ("v4.4", 2)):
        outcome = run(program, kernel, oracles=and_slow({id}))
        assert id in outcome.ids
        rough = replace(crash.reproducer(program, outcome, id), kernel=kernel)
        crash.save(tmp_path, rough, outcome, id)
        assert len(list(tmp_path.iterdir())) == folders


def test_a_campaign_leaves_the_folders_of_another_alone(tmp_path: Path) -> None:
    """Of what is there before, nothing goes but for a smaller form of the same crash."""

    def campaign(seed: int) -> dict[str, str]:
        options = Options("v4.3", seed=seed, runs_max=3000, crashes=tmp_path)
        list(Driver(options).events())
        return {path.parent.name: path.read_text() for path in tmp_path.glob("*/repro.prog")}

    before = campaign(5)
    assert before
    after = campaign(6)
    assert before.keys() <= after.keys()


def test_every_mutation_of_a_valid_program_is_valid_and_runs() -> None:
    from random import Random

    rng = Random(5)
    program = generate(rng, "v4.4")
    for _ in range(300):
        program = mutate(rng, program, generate(rng, "v4.4"))
        assert parse(print_program(program)) == program
        run(program)


def test_sampling_counts_hits_and_says_when_the_first_came() -> None:
    program = read_program(races_folder() / "7a.prog")
    spelling = expand("pct(depth=2)", lambda: Profile(100))
    result = sample(program, "v4.3", spelling, 1500, 0)
    assert 0 < result.hits < 1500
    assert result.findings["bug-newpage-trylock"] == result.hits
    assert result.first_hit is not None
    assert sample(program, "v4.3", spelling, 1500, 0) == result
    assert sample(program, "v4.4", spelling, 1500, 0).hits == 0
    assert sample(program, "v4.3", spelling, 1500, 0, ignore=frozenset(result.findings)).hits == 0


def test_schedulers_are_spelled_canonically() -> None:
    from fuzz.prog import ProgError

    assert expand("pct", lambda: Profile(212)) == "pct(depth=3,steps=212)"
    assert expand("random_walk( run=4 )", lambda: Profile(1)) == "random_walk(run=4)"
    for wrong in ("pct(depth=0)", "pct(colour=1)", "lottery", "pct(depth=3"):
        with pytest.raises(ProgError):
            expand(wrong, lambda: Profile(1))
    with pytest.raises(ProgError, match="not expanded"):
        make_scheduler("pct(depth=2)")


def test_an_injected_fault_is_told_by_name_and_replays() -> None:
    text = (
        "kfuzz 1\nkernel: v4.3\nmachine: cpus=1 zones=2 pages=8 pool=0\ninit:\n  A map 0 anon\n"
        "cpu0:\n  A write 0.0\n  A write 0.0\nfaults:\n  cpu0 alloc_page #1\n"
    )
    outcome = run(parse(text))
    assert outcome.returns[1] == (-12, 0)
    assert outcome.machine.faults_taken == [("cpu0", "alloc_page", 1)]


def test_explore_covers_free_choices_with_no_preemption_at_all() -> None:
    """7a needs cpu1 to begin; x1 needs a preemption."""
    program = read_program(races_folder() / "x1.prog")
    assert explore(program, "v4.4", preemptions=0).schedules == 2
    assert explore(program, "v4.4", preemptions=0).findings == {}
    assert explore(program, "v4.4", preemptions=1).findings
