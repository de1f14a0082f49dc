"""The home: the directory of one market, where it is, and where its files are."""

import os

from compute_market import home
from compute_market.errors import NotFoundError, UsageError
from compute_market.text import cause_of, legible

VARIABLE = "TB_HOME"
# Variables that are no settings.
OTHER_VARIABLES = (VARIABLE, "TB_DEBUG", "TB_NO_FAST_EXIT")
DEFAULT = "~/.the_block"
_HINT = f"choose another directory with --home or {VARIABLE}"


class Home:
    """The directory of one market; it need not exist. It prints as its path."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def __str__(self) -> str:
        return self.path

    @property
    def market(self) -> str:
        """The directory of the store."""
        return os.path.join(self.path, home.STORE)

    @property
    def data(self) -> str:
        """The file of the store."""
        return os.path.join(self.market, home.DATA)

    @property
    def config(self) -> str:
        return os.path.join(self.path, home.CONFIG)

    @property
    def calibration(self) -> str:
        """What `compute calibrate` writes."""
        return os.path.join(self.path, home.CALIBRATION)

    @property
    def cancellations(self) -> str:
        """The text log of cancellations."""
        return os.path.join(self.path, home.CANCELLATIONS_LOG)

    def has_market(self) -> bool:
        """Whether there is one, or was one: what is left of it is the store's to answer for."""
        return os.path.exists(self.data) or os.path.exists(
            os.path.join(self.market, home.WRITE_LOCK)
        )

    def has_settings(self) -> bool:
        """Whether anything in it bears on a command that needs no market."""
        return os.path.exists(self.config) or os.path.exists(self.calibration)

    def check(self) -> None:
        """Find out, and make nothing, whether files can be put into it, there or not yet.

        Raises UsageError. Slow work whose result is kept there asks this first.
        """
        self._check_directory()
        found = self.path
        while not os.path.lexists(found):
            found = os.path.dirname(found)
        problem = None
        if not os.path.isdir(found):
            problem = "not a directory"
        elif os.statvfs(found).f_flag & os.ST_RDONLY:
            problem = "read-only file system"
        elif not os.access(found, os.W_OK | os.X_OK):
            problem = "permission denied"
        if problem is not None:
            raise UsageError(f"{self.path}: {problem}", hint=_HINT)

    def check_market(self) -> None:
        """Raise NotFoundError if there is no market in it, UsageError if there cannot be one."""
        if self.has_market():
            return
        self._check_directory()
        try:
            os.stat(self.data)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(
                f"no market in {self.path}",
                hint=f"`tb-cli state init` makes one; --home or {VARIABLE} names another home",
            ) from None
        except OSError as error:
            raise UsageError(f"{self.path}: {cause_of(error)}", hint=_HINT) from error

    def make(self) -> None:
        """Create the directory unless it is there. Raises what making a store raises."""
        from compute_market.store.environment import translated

        with translated(self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)

    def _check_directory(self) -> None:
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise UsageError(f"{self.path} is not a directory", hint="give another --home")


def locate(option: str | None) -> Home:
    """The home an operator means: the option, else the variable, else `~/.the_block`.

    Raises UsageError for an empty option, a `~` that stands for nobody, or a name that is no text.
    """
    if option == "":
        raise UsageError("--home is empty", hint="give a directory, or leave it out")
    given = option or os.environ.get(VARIABLE) or DEFAULT
    path = os.path.expanduser(given)
    if path.startswith("~"):
        raise UsageError(f"{given}: no such home directory of a user", hint=_HINT)
    path = os.path.abspath(path)
    if legible(path) != path:
        raise UsageError(f"the home directory {path} is not UTF-8")
    return Home(path)
