"""Times taken side by side. Needs nothing but Python."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Action = Callable[[], object]


def interleave(actions: Mapping[str, Action], rounds: int) -> dict[str, list[float]]:
    """Seconds of each action in each round; in a round every action runs once, one after another.

    A first round is not counted. What disturbs the machine for a while disturbs all of them. The
    order changes from round to round: an action may leave caches and threads warm for the next.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    shuffle = random.Random(0).shuffle
    order = list(actions.items())
    for number in range(rounds + 1):
        shuffle(order)
        for name, action in order:
            began = time.perf_counter()
            action()
            if number:
                times[name].append(time.perf_counter() - began)
    return times


def ratio(times: Sequence[float], floor: Sequence[float]) -> float:
    """The median over the rounds of one time by the other."""
    return statistics.median(one / other for one, other in zip(times, floor, strict=True))
