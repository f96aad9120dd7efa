"""SURW: URW over the events on one word; all others are a plain random walk around them.

Zhao, Wolff, Mathur, Roychoudhury: Selectively Uniform Concurrency Testing, ASPLOS 2025, section 4.
A task is chosen, in proportion to the selected events it has left, to be the next to make one; the
others stop before theirs until it has. If the counts are right and nothing blocks, every order of
the selected events is equally likely.
Departures: the paper leaves open what is selected; here it is, in each run, the events on one class
of word that tasks share, by lot. Counts come from the profile run, clamped to at least 1. A chosen
task that cannot go on is replaced by another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fuzz.schedulers.urw import draw
from kstate.machine import Choices, Task, Turn, default_task


class Surw:
    """words: for each class of word to choose from, how many events on it each task has, by index,
    init first. Without any it is a random walk.

    Draws: first the word; then, a decision, the chosen task if there is none, and the one to run
    (0: the default one) if several can."""

    def __init__(self, words: Mapping[str, Sequence[int]]) -> None:
        self.words = {word: tuple(counts) for word, counts in words.items()}
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.every_step = False  # until tasks compete; then every selected event is to be counted
        self._choose = choices.choose
        self._word: str | None = None
        self._left: dict[int, int] = {}
        self._chosen: Task | None = None

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        self.every_step = len(runnable) > 1 or runnable[0].index > 0
        if self._word is None:
            self._word = ""
            if self.words:
                self._word = tuple(self.words)[self._choose(len(self.words))]
                self._left = dict(enumerate(self.words[self._word]))
        chosen = self._chosen
        if chosen is None or chosen not in runnable:
            chosen = self._chosen = draw(runnable, current, self._left, self._choose)
        able = [task for task in runnable if task is chosen or not self._is_selected(task)]
        task = able[0]
        if len(able) > 1:
            task = default_task(able, current if current in able else None)
            drawn = self._choose(len(able))
            if drawn:
                task = [other for other in able if other is not task][drawn - 1]
        if self._is_selected(task):
            self._left[task.index] = self._left.get(task.index, 0) - 1
            self._chosen = None
        return Turn(task, 1)

    def _is_selected(self, task: Task) -> bool:
        return task.point is not None and task.point.primitive.word == self._word
