"""How far a flush came, and what kept it from coming further."""

from typing import Final

from msgspec import Struct, field

# Destinations of which it is told what went wrong.
_TOLD_MAX: Final = 20


class Problem(Struct, gc=False):
    """What is wrong with a destination."""

    bundles: int = 0  # that failed, or were left
    error: str | None = None  # the last one


class Forwarded(Struct, gc=False):
    """How far a flush came."""

    acknowledged: int = 0
    refused: int = 0  # for good
    failed: int = 0  # bundles that were tried, and still wait
    attempts: int = 0
    failures: int = 0  # of attempts
    left: int = 0  # bundles that still wait
    held: int = 0  # of them that another flush has
    held_until_ms: int = 0  # when it has none of them any more
    retried: int = 0  # attempts that were not the first of their bundle
    problems: dict[str, Problem] = field(default_factory=dict)  # by destination, of some
    untold: set[str] = field(default_factory=set)  # further ones that took less than all

    @property
    def total(self) -> int:
        """All that there was to be forwarded."""
        return self.acknowledged + self.refused + self.left

    def note(self, dest: str, error: str | None) -> None:
        """Keep in mind what went wrong with a bundle, to be told in the end."""
        if dest in self.problems or len(self.problems) < _TOLD_MAX:
            problem = self.problems.setdefault(dest, Problem())
            problem.bundles += 1
            problem.error = error or problem.error
        else:
            self.untold.add(dest)
