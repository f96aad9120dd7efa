"""The command line is a contract: exit statuses, one-line errors, JSON, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.corpus import races_folder
from fuzz.schedulers import SAMPLERS

RACES = races_folder()
LEAK = RACES / "2b-i-munlock.prog"


def kfuzz(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2, one line that begins with kfuzz:, no traceback, nothing on stdout."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.startswith("kfuzz: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("1:1", "ends where")),
        (b"\x7fELF\x02\x01\x01\x00" + bytes(range(256)), ("bad.prog:",)),
        (LEAK.read_bytes()[:300], ("bad.prog",)),
        (b"kfuzz 1\n" + b"# filler\n" * 1_200_000, ("too many",)),
        (b"kfuzz 1\nkernel: v4.3\nmachine: cpus=1\ncpu0:\n  A fly\n", ("5:5", "unknown operation")),
        (b"kfuzz 1\nkernel: v4.3+P77\nmachine: cpus=1\n", ("2:14", "unknown patch")),
        (b"kfuzz 1\nkernel: v4.3+P08\nmachine: cpus=1\n", ("2:9", "P08 requires P07")),
    ],
    ids=["empty", "binary", "truncated", "10MB", "operation", "patch", "unmet"],
)
@pytest.mark.parametrize("command", ["replay", "show", "fmt", "minimize"])
def test_a_bad_file_is_refused_in_one_line(
    command: str, content: bytes, words: tuple[str, ...], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.prog"
    bad.write_bytes(content)
    refused(kfuzz(command, bad), *words)
    assert bad.read_bytes() == content
    assert list(tmp_path.iterdir()) == [bad]


def test_a_missing_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    refused(kfuzz("replay", tmp_path / "no.prog"), "no.prog", "No such file")
    refused(kfuzz("show", tmp_path / "no.prog"), "No such file")
    refused(kfuzz("fmt", tmp_path), "Is a directory")
    refused(kfuzz("replay", tmp_path), "no .prog file")


def test_bad_usage_is_refused_in_one_line(tmp_path: Path) -> None:
    refused(kfuzz("frobnicate"), "No such command")
    refused(kfuzz("run", "--kernel", "v9"), "must begin with")
    refused(kfuzz("run", "--runs", "0"))
    refused(kfuzz("run", "--only", "nonsense", "--runs", "1"), "unknown finding")
    refused(kfuzz("sample", LEAK, "--scheduler", "dice", "--runs", "1"), "unknown scheduler")
    refused(kfuzz("replay", LEAK, "--expect", "nonsense"), "unknown finding")
    refused(kfuzz("bench", "nonsense"), "unknown bench")
    refused(kfuzz("bench", "steps", "--salt", "2"), "--salt is for")
    refused(kfuzz("bench", "steps", "--keep", "2"), "--keep is for")
    refused(kfuzz("bench", "matrix", "--keep", LEAK), "it is left alone")
    refused(kfuzz("sample", LEAK, "--scheduler", "urw(events=0)", "--runs", "1"), "events is")
    refused(kfuzz("sample", LEAK, "--scheduler", "all(depth=3)", "--runs", "1"), "unknown")
    refused(kfuzz("pairs", "--kernel", "v9"), "must begin with")
    refused(kfuzz("minimize", LEAK, "--kernel", "v4.4+70feee0e1ef3"), "shows nothing")
    refused(kfuzz("minimize", LEAK, "-o", tmp_path / "no" / "where.prog"), "No such file")


def test_a_crash_folder_that_cannot_be_written_is_refused_before_the_campaign(
    tmp_path: Path,
) -> None:
    """Root may write anywhere, so the folder's place is taken by a file."""
    taken = tmp_path / "crashes"
    taken.write_text("mine")
    refused(kfuzz("run", "--runs", 100, "--crashes", taken), "cannot write there")
    assert taken.read_text() == "mine"


def test_one_bad_file_among_many_is_told_and_the_rest_run(tmp_path: Path) -> None:
    (tmp_path / "a.prog").write_text("nonsense")
    (tmp_path / "b.prog").write_text(LEAK.read_text())
    result = kfuzz("replay", tmp_path)
    assert result.returncode == 2
    assert "a.prog:1:1" in result.stderr
    assert result.stdout.count("ok") == 4


def test_replay_and_its_json_agree() -> None:
    assert kfuzz("replay", RACES).returncode == 0
    result = kfuzz("replay", LEAK, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    first = records[0]
    assert first["kernel"] == "v4.3"
    assert first["outcome"] == "finding"
    assert first["findings"][0]["id"] == "mlocked-page-leak"
    assert first["expected"] is True
    assert first["diverged"] is None
    assert kfuzz("replay", LEAK, "--kernel", "v4.4", "--expect", "deadlock").returncode == 1
    assert kfuzz("replay", LEAK, "--kernel", "v4.3+P03").returncode == 0
    assert "mlock_vma_page" in kfuzz("replay", LEAK, "--trace", "--kernel", "v4.3").stdout


def test_patch_prints_a_diff_of_our_files() -> None:
    text = kfuzz("patch", "P10")
    assert text.returncode == 0
    assert "--- a/kstate/mm/rmap.py\n+++ b/kstate/mm/rmap.py\n@@ -" in text.stdout
    assert "@@ replace_pte()\n" in text.stdout
    record = json.loads(kfuzz("patch", "P10", "--json").stdout)
    assert record["files"][0]["diff"] in text.stdout
    assert record["files"][0]["functions"] == ["replace_pte"]
    words = kfuzz("patch", "P01")
    assert words.returncode == 0
    assert "text only" in words.stdout
    refused(kfuzz("patch", "P13"), "unknown patch")
    refused(kfuzz("patch", "P08", "--kernel", "v4.3"), "requires P07")


def test_locks_says_what_is_taken_under_what() -> None:
    asked = ("locks", LEAK, "--under", "ptl", "--within", "mlock_vma_page")
    text = kfuzz(*asked)
    assert text.returncode == 0
    assert "  ptl > lru_lock, irqs off: in documented order\n" in text.stdout
    assert "no cycle" in text.stdout
    record = json.loads(kfuzz(*asked, "--json").stdout)
    assert {taking["taken"] for taking in record["taken"]} == {"lru_lock"}
    assert record["violations"] == []
    refused(kfuzz("locks", LEAK, "--under", "ptll"), "'ptll'", "known:")
    refused(kfuzz("locks", LEAK, "--within", "mlock_vma_pagee"), "mlock_vma_pagee")


@pytest.mark.parametrize("command", ["races", "findings", "points", "ops"])
def test_lists_are_text_and_json(command: str) -> None:
    text, records = kfuzz(command), kfuzz(command, "--json")
    assert text.returncode == records.returncode == 0
    assert text.stdout.strip()
    for line in records.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


def test_every_command_has_help_with_an_example() -> None:
    names = [
        "run", "replay", "show", "sample", "minimize", "fmt", "races", "findings", "points", "ops",
        "bench", "patch", "locks", "bisect", "pairs",
    ]  # fmt: skip
    for name in names:
        result = kfuzz(name, "--help")
        assert result.returncode == 0
        assert "Example:" in result.stdout
    assert "model" in kfuzz("--version").stdout


def test_show_draws_a_column_a_cpu() -> None:
    text = kfuzz("show", LEAK).stdout
    assert "cpu0" in text
    assert "mlock_vma_page()" in text
    assert "// mlocked-page-leak" in text
    assert "left before test_and_set_bit(flags.mlocked)" in text


def test_sample_all_compares_every_sampler_on_every_finding() -> None:
    arguments = ("sample", LEAK, "--scheduler", "all", "--runs", 70)
    result = kfuzz(*arguments, "--json")
    assert result.returncode == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    names = [record["scheduler"].partition("(")[0] for record in records]
    assert names == [name.partition("(")[0] for name in SAMPLERS]
    for record in records:
        assert set(record["intervals"]) == set(record["findings"]) == set(record["expected_runs"])
        low, high = record["interval"]
        assert low <= record["hits"] / 70 <= high
        assert high - low < 0.25
        for id, count in record["findings"].items():
            assert record["expected_runs"][id] == 70 / count
    text = kfuzz(*arguments)
    assert text.returncode == 1
    ids = {id for record in records for id in record["findings"]}
    assert "nr-mlock-mismatch" in ids
    for id in ids:
        block = text.stdout.partition(f"\n{id}\n")[2].splitlines()[: len(SAMPLERS)]
        assert [line.split("  ")[1] for line in block] == list(SAMPLERS)
    assert (
        kfuzz("sample", LEAK, "--scheduler", "pos", "--runs", 2, "--kernel", "v4.4").returncode == 0
    )


def test_sample_tells_progress_on_stderr_and_what_is_complete_on_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "sample", str(LEAK), "--scheduler", "random_walk",
         "--runs", "10000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert "of 10000000 runs" in process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert out == ""


def test_pairs_lists_measured_conflicts_the_rarest_first_and_always_the_same() -> None:
    result = kfuzz("pairs", "--runs", 60, "--json")
    assert result.returncode == 0
    records = [json.loads(line) for line in result.stdout.splitlines()]
    pairs = [record for record in records if record["event"] == "pair"]
    shares = [record["conflicting"] / record["states"] for record in pairs]
    assert shares == sorted(shares)
    assert all(len(record["points"]) == len(record["operations"]) == 2 for record in pairs)
    assert {record["operation"] for record in records if record["event"] == "operation"} >= {
        "munlock",
        "exit",
    }
    assert kfuzz("pairs", "--runs", 60, "--json").stdout == result.stdout
    text = kfuzz("pairs", "--runs", 60, "--rows", 2).stdout.splitlines()
    assert len(text) == 2 + 2 * 3


def test_minimize_and_fmt_write_what_replays(tmp_path: Path) -> None:
    small = tmp_path / "small.prog"
    assert kfuzz("minimize", LEAK, "-o", small).returncode == 0
    assert kfuzz("replay", small).returncode == 0
    before = small.read_text()
    assert kfuzz("fmt", "-w", small).returncode == 0
    assert small.read_text() == before


def test_run_tells_json_and_keeps_crashes_and_corpus(tmp_path: Path) -> None:
    crashes, corpus = tmp_path / "crashes", tmp_path / "corpus"
    arguments = ("run", "--runs", 4000, "--seed", 3, "--crashes", crashes, "--corpus", corpus)
    result = kfuzz(*arguments, "--json")
    assert result.returncode == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["event"] == "summary"
    assert {event["event"] for event in events} >= {"finding", "summary"}
    strategies = events[-1]["strategies"]
    assert {"growing", "measuring", "meeting", "pos", "surw"} <= set(strategies)
    assert all(mine["steps"] > 0 for mine in strategies.values())
    assert sum(mine["news"] for mine in strategies.values()) == events[-1]["features"]
    assert sorted(path.name for path in crashes.iterdir()) == events[-1]["crashes"]
    assert kfuzz("replay", crashes).returncode == 0
    (corpus / "bad.prog").write_text("nonsense")
    again = kfuzz(*arguments)
    assert again.returncode == 2
    assert "bad.prog:1:1" in again.stderr


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_campaign_and_loses_no_finding(
    number: int, status: int, jobs: int, tmp_path: Path
) -> None:
    crashes = tmp_path / "crashes"
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "run", "--time", "60", "--json", "--jobs", str(jobs),
         "--crashes", str(crashes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "finding":
            seen.append(event)
            break
    time.sleep(0.3)
    os.kill(process.pid, number)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    seen += [event for event in map(json.loads, rest.splitlines()) if event["event"] == "finding"]
    ids = {event["id"] for event in seen}
    kept = {path.name.rsplit("-", 1)[0] for path in crashes.iterdir()}
    assert ids <= kept
    assert kfuzz("replay", crashes).returncode == 0


def test_a_worker_that_is_killed_is_told_of_and_the_others_go_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "run", "--time", "8", "--json", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # a status: both are at work, or one and the other about to begin
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    rest, errors = process.communicate(timeout=30)
    summary = json.loads(rest.splitlines()[-1])
    assert process.returncode == (1 if summary["counts"] else 0), errors
    assert "a worker was killed" in errors
    assert "(seed 0/0)" in errors
    assert "Traceback" not in errors
    assert summary["elapsed_s"] > 6


def test_a_mistake_of_ours_is_exit_70_with_a_saved_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fuzz import cli, cli_runs
    from kstate.machine import ModelError

    def broken(*_: object, **__: object) -> None:
        raise ModelError("planted")

    monkeypatch.setattr(cli_runs, "diagram", broken)
    with pytest.raises(SystemExit) as caught:
        cli.main(["show", str(LEAK)])
    assert caught.value.code == 70
    told = capsys.readouterr().err
    assert "a bug of kfuzz itself" in told
    saved = Path(told.split()[-1])
    assert "planted" in saved.read_text()
    saved.unlink()


@pytest.mark.parametrize(
    ("added", "place", "words"),
    [
        ("choices: bogus | |", ":7:10", "unknown scheduler"),
        ("choices: pct(depth=3) | |", ":7:10", "not expanded"),
        ("faults:\n  cpu0 alloc_pag #1", ":8:8", "can fail"),
        ("faults:\n  cpu7 alloc_page #1", ":8:19", "there is no cpu7"),
        ("faults:\n  cpu0 alloc_page #" + "9" * 5000, ":8:3", "at which call"),
        ("expect v4.3: not no-such-finding", ":7:18", "unknown finding"),
        ("expect v4.3+x:typo: clean", ":7:13", "no line of kstate asks"),
    ],
    ids=["scheduler", "unexpanded", "what fails", "who", "digits", "finding", "toggle"],
)
def test_what_a_file_names_must_be_there(
    tmp_path: Path, added: str, place: str, words: str
) -> None:
    """And the files after a bad one are run."""
    head = "kfuzz 1\nkernel: v4.3\nmachine: cpus=1\ncpu0:\n  A map 0 anon\n  A read 0.0\n"
    (tmp_path / "a.prog").write_text(head + added + "\n")
    (tmp_path / "b.prog").write_text(head)
    refused(kfuzz("show", tmp_path / "a.prog"), f"a.prog{place}: ", words)
    result = kfuzz("replay", tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"kfuzz: {tmp_path}/a.prog{place}: ")
    assert "b.prog" in result.stdout


def test_no_zones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.prog").write_text("kfuzz 1\nkernel: v4.3\nmachine: cpus=2 zones=0\n")
    refused(kfuzz("fmt", tmp_path / "a.prog"), "3:10", "zones=0")


def test_a_claim_of_absence_wants_a_run_that_could_have_shown_it(tmp_path: Path) -> None:
    """Not one that has left its schedule, nor one that a BUG has ended: then all absent findings
    are searched for, not the first alone."""
    text = LEAK.read_text()
    lost = text[: text.index("expect ")].replace(
        "\n  cpu1 until", "\n  cpu0 for 9000\n  cpu1 until", 1
    )
    for expects, status in (
        (("not bad-rss-counter",), 0),
        (("not bad-rss-counter", "not mlocked-page-leak"), 1),
        (("not mlocked-page-leak", "not bad-rss-counter"), 1),
        (("clean",), 1),
    ):
        file = tmp_path / "lost.prog"
        file.write_text(lost + "".join(f"expect v4.3: {expect}\n" for expect in expects))
        result = kfuzz("replay", file)
        assert "followed 0 of" in result.stdout
        assert result.returncode == status, (expects, result.stdout)
    bug = (RACES / "7a.prog").read_text()
    file = tmp_path / "bug.prog"
    file.write_text(bug[: bug.index("expect ")] + "expect v4.3: not mlocked-page-leak\n")
    result = kfuzz("replay", file)
    assert result.returncode == 0
    assert "EXHAUSTED" in result.stdout


def test_a_bound_says_what_the_file_leaves_out(tmp_path: Path) -> None:
    text = LEAK.read_text()
    head, _, rest = text.partition("schedule:")
    file = tmp_path / "less.prog"
    file.write_text(
        head + "yield-at: mm/rmap.py:*\nfaults:\n  cpu1 alloc_page #9\nschedule:" + rest
    )
    shown = kfuzz("explore", file, "--preemptions", 0, "--kernel", "v4.4")
    said = "preemptions <= 0, faults 0, yield-at mm/rmap.py:*, failing cpu1 alloc_page #9"
    assert said in shown.stdout
    file.write_text(head + "yield-at: mm/nosuch.py:*\nschedule:" + rest)
    refused(kfuzz("explore", file, "--preemptions", 2), "mm/nosuch.py:*", "matches no point")
    refused(kfuzz("explore", LEAK, "--yield-at", "x*", "--preemptions", 0), "'x*'", "no point")
    glob = "mm/swap.py:__activate_page set_bit(flags.active)"  # met by other runs than the first
    search = ("explore", LEAK, "--preemptions", 1, "--kernel", "v4.4+70feee0e1ef3")
    kept = tmp_path / "kept"
    for more in (("--jobs", 2), ("--checkpoint", kept), ("--checkpoint", kept)):
        shown = kfuzz(*search, "--yield-at", "mm/*", "--yield-at", glob, *more)
        assert shown.returncode == 0, shown
    shown = kfuzz("sample", LEAK, "--scheduler", "pos", "--runs", 3, "--yield-at", "mm/rmap.py:*")
    assert shown.returncode in (0, 1)


def test_stop_at_counts_the_turns_of_the_schedule(tmp_path: Path) -> None:
    refused(kfuzz("replay", LEAK, "--pdb"), "belong together")
    refused(kfuzz("replay", LEAK, "--stop-at", 1), "belong together")
    refused(kfuzz("replay", LEAK, "--stop-at", 99, "--pdb"), "turns")
    file = tmp_path / "more.prog"
    text = LEAK.read_text()
    file.write_text(text.replace("schedule:\n", "schedule:\n  cpu1 for 3\n  cpu1 for 3\n", 1))
    command = [sys.executable, "-m", "fuzz", "replay", str(file), "--kernel", "v4.3"]
    result = subprocess.run(
        [*command, "--stop-at", "2", "--pdb", "--json"],
        input="c\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr.startswith("turn 2: cpu1 is about to do ")
    assert json.loads(result.stdout)["steps"]
    ended = subprocess.run(
        [*command, "--stop-at", "2", "--pdb"], input="", capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 0


def test_a_reader_that_goes_away_ends_a_command_quietly() -> None:
    # More than a pipe holds: whether a shorter output fails depends on who is faster.
    for command in ("replay corpus/races --trace --json", "replay corpus/races --trace"):
        shell = f"{sys.executable} -m fuzz {command} | head -1; echo ${{PIPESTATUS[0]}}"
        result = subprocess.run(
            ["bash", "-c", shell],
            capture_output=True,
            text=True,
            check=False,
            cwd=RACES.parent.parent,
        )
        assert result.stderr == ""
        assert result.stdout.splitlines()[-1] == "141"


def test_without_stdout_a_command_does_what_it_does() -> None:
    command = f"{sys.executable} -m fuzz findings >&-"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_disk_is_told_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "fuzz", "findings"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 2
    assert "No space left" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_written_to_stays_what_it_is(tmp_path: Path) -> None:
    file, link = tmp_path / "a.prog", tmp_path / "link.prog"
    file.write_text("kfuzz 1\n# why\nkernel:   v4.3\nmachine: cpus=1\ninit: # nothing\n")
    file.chmod(0o600)
    link.symlink_to(file)
    assert kfuzz("fmt", "-w", link).returncode == 0
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().count("#") == 2
    assert kfuzz("minimize", LEAK, "--kernel", "v4.3", "-o", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "init:  # none\ncpu0:  # t0\n  A exit  # bye\n",
            "# none\ncpu0:  # t0\n  A exit  # bye\n",
        ),
        (
            "yield-at:\nfaults:  # none\nexpect v4.3: clean  # sure\n",
            "# none\nexpect v4.3: clean  # sure\n",
        ),
        ("init:\nfaults:\n# the end\n", "# the end\n"),
    ],
)
def test_comments_of_sections_that_go_stay(tmp_path: Path, before: str, after: str) -> None:
    head = "kfuzz 1\nkernel: v4.3\nmachine: cpus=1 zones=1 pages=16 pool=0\n"
    (tmp_path / "a.prog").write_text(head + before)
    assert kfuzz("fmt", tmp_path / "a.prog").stdout == head + after


def test_times_end_and_paths_that_cannot_be_looked_at_are_told(tmp_path: Path) -> None:
    for value in ("nan", "inf", "1e999"):
        refused(kfuzz("run", "--time", value), "no number of seconds")
        refused(kfuzz("explore", LEAK, "--time", value), "no number of seconds")
    refused(kfuzz("replay", tmp_path / ("x" * 300)), "name too long")
    os.mkfifo(tmp_path / "pipe.prog")
    refused(kfuzz("replay", tmp_path), "no .prog file in it")  # nobody writes to the pipe
    command = f"{sys.executable} -m fuzz replay <(cat {LEAK})"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0


def test_a_checkpoint_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    search = ("explore", RACES / "2k.prog", "--preemptions", 1, "--checkpoint", kept)
    assert kfuzz(*search).returncode == 0
    head, line, *_ = kept.read_text().splitlines()
    for wrong in ("[[], null, {}]", line.replace('"schedules": ', '"schedules": -'), "[" * 100_000):
        kept.write_text(f"{head}\n{wrong}\n")
        refused(kfuzz(*search), "kept:2", "no line of a checkpoint")


def test_a_campaign_whose_disk_is_full_tells_what_it_has_found(tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk."""
    for jobs in (1, 2):
        shell = f"ulimit -f 1; trap '' XFSZ; {sys.executable} -m fuzz run --runs 9000 --jobs {jobs}"
        result = subprocess.run(
            ["bash", "-c", f"{shell} --crashes {tmp_path}/{jobs}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2, result
        assert result.stderr.splitlines()[-1].startswith("kfuzz: ")
        assert "File too large" in result.stderr.splitlines()[-1]
        assert not list((tmp_path / str(jobs)).iterdir())


def test_ctrl_c_while_it_starts_is_quiet() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "fuzz", "ops"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "click" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.communicate()
    assert "Traceback" not in rest
    assert process.returncode in (0, 130)


@pytest.mark.parametrize("command", [("replay", RACES, "--data-races"), ("bench", "matrix")])
def test_a_command_that_is_terminated_says_so_and_no_more(command: tuple[object, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fuzz", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said == ""
