"""Programs as text: printing and parsing are inverse, errors name line and column."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.corpus import program_files, races_folder
from fuzz.prog import Expect, ProgError, Program, TurnSpec, parse, print_program
from fuzz.prog.generate import generate
from fuzz.prog.mutate import mutate
from fuzz.prog.prog import ChoicesSpec

POINT = "mm/rmap.py:try_to_unmap_one spin_unlock(ptl)"
TURNS = st.one_of(
    st.builds(TurnSpec, st.just(0), st.just("until"), st.just(POINT), st.integers(1, 99)),
    st.builds(TurnSpec, st.just(1), st.just("through"), st.just(POINT), st.integers(1, 99)),
    st.builds(TurnSpec, st.just(0), st.just("for"), st.just(""), st.integers(1, 999)),
    st.sampled_from([TurnSpec(0, "blocked"), TurnSpec(1, "end")]),
)
EXPECTS = st.sampled_from(
    [Expect("v4.3", "deadlock"), Expect("v4.4", "deadlock", True), Expect("v4.4", "", True)]
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    rng = Random(draw(st.integers(0, 2**32)))
    program = mutate(rng, generate(rng, "v4.3+P02"), generate(rng, "v4.4"))
    if draw(st.booleans()):
        program = replace(program, schedule=tuple(draw(st.lists(TURNS, max_size=5))))
    elif draw(st.booleans()):
        ints = tuple(draw(st.lists(st.integers(0, 99999), max_size=6)))
        program = replace(program, choices=ChoicesSpec("pct(depth=2,steps=9)", ints, ints[:2]))
    return replace(
        program,
        yield_at=tuple(draw(st.lists(st.sampled_from(["mm/*", "*ptl*"]), max_size=2))),
        faults=tuple(draw(st.lists(st.just(("cpu1", "alloc_page", 2)), max_size=1))),
        expects=tuple(draw(st.lists(EXPECTS, max_size=3))),
    )


@settings(max_examples=300, deadline=None)
@given(programs())
def test_printing_and_parsing_are_inverse(program: Program) -> None:
    text = print_program(program)
    assert parse(text) == program
    assert print_program(parse(text)) == text


def test_comments_survive_formatting() -> None:
    for path in program_files(races_folder()):
        text = path.read_text()
        assert print_program(parse(text)) == text, f"{path.name} is not canonical"
    text = (
        "kfuzz 1  # one\n# above\nkernel: v4.3\nmachine: cpus=2\n"
        "cpu0:\n  # in\n  A exit # x\n# end\n"
    )
    again = print_program(parse(text))
    assert [line for line in again.splitlines() if "#" in line] == [
        "kfuzz 1  # one",
        "# above",
        "  # in",
        "  A exit  # x",
        "# end",
    ]


HEAD = "kfuzz 1\nkernel: v4.3\nmachine: cpus=2 zones=2 pages=16 pool=1\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "wrong"),
    [
        ("", 1, 1, "ends where"),
        ("hello\n", 1, 1, "not a program"),
        ("kfuzz 7\n", 1, 7, "format version 7"),
        ("kfuzz 1\nmachine: cpus=2\n", 2, 1, "expected 'kernel:'"),
        ("kfuzz 1\nkernel: v4.3+P99\nmachine: cpus=1\n", 2, 14, "unknown patch 'P99'"),
        ("kfuzz 1\nkernel: v4.3+P08\nmachine: cpus=1\n", 2, 9, "P08 requires P07"),
        ("kfuzz 1\nkernel: v4.3\nmachine: cpus=x\n", 3, 15, "expected a number"),
        ("kfuzz 1\nkernel: v4.3\nmachine: cpus=99\n", 3, 10, "between 1 and 8"),
        (HEAD + "cpu0:\n  A frobnicate 0\n", 5, 5, "unknown operation 'frobnicate'"),
        (HEAD + "cpu0:\n  A mlock 0.0\n", 5, 5, "usage: mlock S.P"),
        (HEAD + "cpu0:\n  A mlock 0.9 +1\n", 5, 11, "slots are 0 to 3"),
        (HEAD + "cpu0:\n  A mlock 0.0 +7\n", 5, 15, "a count is 1 to 2"),
        (HEAD + "cpu0:\n  Z exit\n", 5, 3, "expected a process"),
        (HEAD + "cpu0:\n  A exit\ncpu1:\n  A exit\ncpu2:\n  A exit\n", 9, 3, "3 tasks on 2 cpus"),
        (HEAD + "schedule:\n  cpu7 to end\n", 5, 3, "there is no cpu7"),
        (HEAD + "cpu0:\n  A exit\nschedule:\n  cpu0 until nonsense #1\n", 7, 14, "not a point"),
        (HEAD + "cpu0:\n  A exit\nschedule:\n  run cpu0\n", 7, 3, "expected 'cpuN until"),
        (HEAD + "cpu0:\n  A exit\nexpect v4.3: Wrong_ID\n", 6, 14, "not a finding id"),
        (HEAD + "cpu0:\n  A exit\nexpect v9: clean\n", 6, 8, "must begin with"),
        (HEAD + "nonsense here\n", 4, 1, "unexpected 'nonsense'"),
        (HEAD + "choices: pct 1 2\n", 4, 10, "expected 'SCHEDULER"),
        (HEAD + "cpu0:\n  A ex\x00it\n", 5, 7, "unexpected character"),
    ],
)
def test_errors_name_line_and_column(text: str, line: int, column: int, wrong: str) -> None:
    with pytest.raises(ProgError, match=wrong) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_bytes_that_are_no_text_and_files_that_are_too_big_are_refused() -> None:
    with pytest.raises(ProgError, match="not UTF-8") as caught:
        parse(b"kfuzz 1\nkernel: \xff\n")
    assert (caught.value.line, caught.value.column) == (2, 9)
    with pytest.raises(ProgError, match="too many for a program"):
        parse(b"kfuzz 1\n" + b"#" * 10_000_000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_input_does_anything_but_parse_or_fail_in_one_way(data: bytes) -> None:
    with suppress(ProgError):
        parse(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_race_file_parses_or_fails_in_one_way(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(program_files(races_folder()))).read_bytes()
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    with suppress(ProgError):
        parse(text[:at] + data.draw(st.binary(max_size=8)) + text[at + cut :])


def test_every_made_up_program_prints_and_parses_back() -> None:
    """Arguments of every type are drawn from what the grammar has."""
    rng = Random(7)
    for _ in range(2000):
        program = generate(rng, "v4.4")
        assert parse(print_program(program)) == program
