"""A portfolio: strategies share a budget of steps by what they still find.

Stride scheduling (Waldspurger and Weihl, 1995): each strategy has a weight, and the one that is
furthest behind its share of the steps goes next. The weight is its recent yield, new behaviours per
thousand steps, among those of all; everyone keeps a floor, for what is exhausted now may not be
when the corpus has grown. No clock: a campaign of so many runs is the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

FLOOR = 0.05  # of the budget for every strategy, to be shared by all if too many
MEMORY = 0.98  # what a round leaves of the rounds before it, in a yield


@dataclass
class Yield:
    """What a strategy took and found: rounds, steps run, behaviours it was first to show."""

    rounds: int = 0
    steps: int = 0
    news: int = 0

    @property
    def per_thousand_steps(self) -> float:
        return round(1000 * self.news / self.steps, 3) if self.steps else 0.0


@dataclass
class Strategy:
    """total: its yield so far. recent_steps, recent_news: the same, fading. passed: how far it is
    along, in steps over weight."""

    name: str
    total: Yield = field(default_factory=Yield)
    recent_steps: float = 1000.0
    recent_news: float = 1.0
    passed: float = 0.0

    @property
    def recent_yield(self) -> float:
        """New behaviours per thousand steps, of late."""
        return 1000 * self.recent_news / self.recent_steps


class Portfolio:
    """Whose turn it is. floors: the share of the budget each strategy has at least."""

    def __init__(self, names: tuple[str, ...], floors: dict[str, float] | None = None) -> None:
        self.strategies = {name: Strategy(name) for name in names}
        self.floors = {name: (floors or {}).get(name, FLOOR) for name in names}

    def next(self) -> str:
        """The strategy furthest behind; the first of equals."""
        return min(self.strategies.values(), key=lambda strategy: strategy.passed).name

    def spent(self, name: str, steps: int, news: int) -> None:
        """A round of a strategy is over: what it took and what it found."""
        strategy = self.strategies[name]
        strategy.total.rounds += 1
        strategy.total.steps += steps
        strategy.total.news += news
        strategy.recent_steps = strategy.recent_steps * MEMORY + steps
        strategy.recent_news = strategy.recent_news * MEMORY + news
        strategy.passed += max(1, steps) / self.weight(name)

    def weight(self, name: str) -> float:
        """Its floor, and of what the floors leave the share that its yield has among all."""
        left = 1 - sum(self.floors.values())
        total = sum(strategy.recent_yield for strategy in self.strategies.values())
        share = self.strategies[name].recent_yield / total if total else 0.0
        return self.floors[name] + max(0.0, left) * share

    def yields(self) -> dict[str, Yield]:
        """What each strategy took and found so far."""
        return {name: replace(strategy.total) for name, strategy in self.strategies.items()}
