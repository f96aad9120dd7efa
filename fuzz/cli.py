"""The command line: `kfuzz`, and what its commands share; they stand in the files of COMMANDS.

What each command prints with --json stands in JSON.md."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from bdb import BdbQuit
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from fuzz.corpus import program_files, read_program
from fuzz.findings import FINDINGS
from fuzz.prog.prog import ProgError, Program
from fuzz.subject import MachineSubject, NotDeterministic, SetupError
from fuzz.userfile import BadFile, user_program
from fuzz.version import model_hash, package_version
from kstate.machine import ModelError
from kstate.patches import TABLE, SpecError, parse_spec

PROGRESS_EVERY_S = 2.0
COMMANDS = ("cli_campaign", "cli_runs", "cli_explore", "cli_lists", "cli_reports")
OK, SHOWN, USAGE, OURS, INTERRUPTED, TERMINATED = 0, 1, 2, 70, 130, 143
GONE = 141  # as a shell says of what SIGPIPE has ended
KERNEL_HELP = (
    "Kernel spec: v4.3 or v4.4, then +item or -item. Modelled in this version: "
    + ", ".join(patch.name for patch in TABLE if patch.modelled and patch.behaviour)
    + "; v4.4 means v4.3 with those of the series."
)


Command = TypeVar("Command", bound=Callable[..., Any])


class UserError(click.ClickException):
    """Bad input: one line, exit 2."""

    exit_code = USAGE


def emit(record: dict[str, Any]) -> None:
    """One JSON object on a line of its own."""
    click.echo(json.dumps(record, sort_keys=True))


def version_text() -> str:
    return f"kfuzz {package_version()}, format 1, model {model_hash()}"


def kernel_option(default: str | None = None) -> Callable[[Command], Command]:
    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return parse_spec(value).text
        except SpecError as error:
            raise UserError(str(error)) from None

    return click.option("--kernel", default=default, callback=check, help=KERNEL_HELP)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
file_argument = click.argument("file", type=click.Path(path_type=Path))


yield_at_option = click.option(
    "--yield-at",
    multiple=True,
    metavar="GLOB",
    help="Interrupt only at points that match, besides those of the file; may be said again.",
)


def with_yield_at(program: Program, globs: tuple[str, ...]) -> Program:
    return replace(program, yield_at=(*program.yield_at, *globs))


def user_subject(name: str) -> MachineSubject:
    """Of FILE.py:function."""
    try:
        return user_program(name)
    except BadFile as error:
        raise UserError(str(error)) from None


@contextmanager
def user_errors(name: str) -> Iterator[None]:
    """What a user's program can do wrong that is no finding."""
    try:
        yield
    except (SetupError, NotDeterministic) as error:
        kind = "not deterministic: " if isinstance(error, NotDeterministic) else ""
        raise UserError(f"{name}: {kind}{error}") from None


def no_kernel(name: str, kernel: str | None) -> None:
    if kernel is not None:
        raise UserError(f"{name}: --kernel is for .prog files: this program has no kernel")


def load(path: Path) -> Program:
    try:
        return read_program(path)
    except ProgError as error:
        raise UserError(error.at(str(path))) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


Loaded = TypeVar("Loaded")


def load_each(
    paths: Iterable[Path], bad: list[str], read: Callable[[Path], Loaded]
) -> Iterator[tuple[Path, Loaded]]:
    """Every file named, or below a folder named, read. One that is bad is told of, and added to
    `bad`; the others go on."""
    for path in files_below(paths):
        try:
            loaded = read(path)
        except ProgError as error:
            bad.append(error.at(str(path)))
        except OSError as error:
            bad.append(f"{path}: {error.strerror}")
        else:
            yield path, loaded
            continue
        click.echo(f"kfuzz: {bad[-1]}", err=True)


def known_ids(ids: Iterable[str]) -> None:
    """Refuse what is no finding id."""
    for id in ids:
        if id not in FINDINGS:
            raise UserError(f"unknown finding {id!r}; 'kfuzz findings' lists them")


def files_below(paths: Iterable[Path]) -> list[Path]:
    """Every program file named, or below a folder named."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: No such file or directory")
        found = program_files(path)
        if not found:
            raise UserError(f"{path}: no .prog file in it")
        files += found
    return files


def on_terminal() -> bool:
    """Does somebody look at stderr?"""
    return sys.stderr is not None and sys.stderr.isatty()


class Signals:
    """Says whether SIGINT or SIGTERM has come, so that a command can end between two runs: raised
    within one it would have to unwind every task. The second one ends it at once."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)

    def stopped(self) -> bool:
        return self.number != 0

    @property
    def status(self) -> int:
        """The exit status it asks for."""
        return INTERRUPTED if self.number == signal.SIGINT else TERMINATED


def counter(name: str, total: int, unit: str = "runs") -> Callable[[int], None]:
    """Tells how far it is, on stderr, every other second; a signal ends the command here."""
    last = [time.monotonic()]
    signals = Signals()

    def tell(done: int) -> None:
        if signals.number:
            raise SystemExit(signals.status)
        if time.monotonic() - last[0] >= PROGRESS_EVERY_S:
            last[0] = time.monotonic()
            click.echo(f"{name}: {done} of {total} {unit}", err=True)

    return tell


class _Seconds(click.FloatRange):
    """A time that ends."""

    def convert(self, value: Any, *rest: Any) -> float:
        seconds = float(super().convert(value, *rest))
        if not isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds.", *rest)
        return seconds


SECONDS = _Seconds(min=0.1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version_text(), message="%(version)s")
def cli() -> None:
    """Find, replay, draw and minimise page-migration races in a model of Linux v4.3 and v4.4."""


def _our_fault(error: BaseException) -> NoReturn:
    """A mistake of ours: say where the traceback is, exit 70."""
    handle, name = tempfile.mkstemp(prefix="kfuzz-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(version_text() + "\n" + " ".join(sys.argv) + "\n\n")
        traceback.print_exception(error, file=file)
    click.echo(f"kfuzz: a bug of kfuzz itself ({type(error).__name__}): see {name}", err=True)
    raise SystemExit(OURS)


def _refuse(message: str) -> NoReturn:
    """One line, exit 2."""
    click.echo(f"kfuzz: {' '.join(message.split())}", err=True)
    raise SystemExit(USAGE)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """A command that does not watch for signals itself ends where it is."""
    raise SystemExit(TERMINATED)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of `kfuzz`. Not click's own main(), which takes a closed pipe for a failure."""
    for module in COMMANDS:
        import_module(f"fuzz.{module}")
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        signal.signal(signal.SIGTERM, _terminated)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with cli.make_context("kfuzz", arguments or ["--help"]) as context:
            status = cli.invoke(context)
        if sys.stdout is not None:  # it is where it was closed before
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        raise SystemExit(error.exit_code) from None
    except click.ClickException as error:
        _refuse(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        raise SystemExit(INTERRUPTED) from None
    except BdbQuit:
        raise SystemExit(OK) from None
    except BrokenPipeError:
        # Whoever read what is printed has gone. What is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(GONE) from None
    except ModelError as error:
        _our_fault(error)
    except OSError as error:
        _refuse(f"{error.filename or 'output'}: {error.strerror or error}")
    except Exception as error:
        _our_fault(error)
    raise SystemExit(status if isinstance(status, int) else OK)
