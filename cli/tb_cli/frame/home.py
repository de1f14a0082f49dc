"""The home: the directory of one market, where it is, and where its files are."""

import os
import stat

from compute_market import home
from compute_market.errors import NotFoundError, UsageError
from compute_market.text import cause_of, legible, quoted

VARIABLE = "TB_HOME"
# Who acts where a command needs a buyer or a provider and names none.
PARTIES = {"buyer": "TB_BUYER", "provider": "TB_PROVIDER"}
JSON_AMOUNTS = "TB_JSON_AMOUNTS"
# Variables that are no settings.
OTHER_VARIABLES = (VARIABLE, "TB_DEBUG", "TB_NO_FAST_EXIT", JSON_AMOUNTS, *PARTIES.values())
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
        return home.data_file(self.market)

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

    @property
    def last_backup(self) -> str:
        """What `state backup` leaves for `state info`."""
        return os.path.join(self.path, home.LAST_BACKUP)

    @property
    def keys(self) -> str:
        """The directory of keys."""
        return os.path.join(self.path, home.KEYS)

    @property
    def bids(self) -> str:
        """The directory of the secrets of sealed bids."""
        return os.path.join(self.path, home.BIDS)

    @property
    def spool(self) -> str:
        """The directory of bundles that are to be forwarded."""
        return os.path.join(self.path, home.SPOOL)

    @property
    def spooling(self) -> str:
        """The directory of bundles that are being sent."""
        return os.path.join(self.spool, home.SPOOLING)

    @property
    def inbox(self) -> str:
        """The directory of bundles that other markets brought."""
        return os.path.join(self.path, home.INBOX)

    @property
    def serve_token(self) -> str:
        """The file of the token that lets others change the market over the net."""
        return os.path.join(self.path, home.SERVE_TOKEN)

    @property
    def reputation(self) -> str:
        """The snapshot of the scores."""
        return os.path.join(self.path, home.REPUTATION)

    def has_market(self) -> bool:
        """Whether there is one, or was one: what is left of it is the store's to answer for."""
        return os.path.lexists(self.data) or os.path.lexists(home.lock_file(self.market))

    def has_settings(self) -> bool:
        """Whether anything in it bears on a command that needs no market."""
        return os.path.exists(self.config) or os.path.exists(self.calibration)

    def holds(self, path: str) -> bool:
        """Whether a path leads into it, all links followed."""
        root = os.path.realpath(self.path)
        return os.path.commonpath((root, os.path.realpath(path))) == root

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
        self.check_owner()

    def check_owner(self) -> str | None:
        """What to warn of: a home of somebody else.

        Raises UsageError for one that everybody may write, and so put links and files into.
        """
        try:
            found = os.stat(self.path)
        except OSError:
            return None  # There is none yet, or it cannot be opened either, which says why.
        self._check_directory()
        if found.st_mode & stat.S_IWOTH:
            is_ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
            way_out = f"`chmod o-w {self.path}` after a look at what is in it"
            raise UsageError(
                f"{self.path} may be written by everybody",
                hint=way_out if is_ours else _HINT,  # Others need it as it is.
            )
        if found.st_uid == os.geteuid():
            return None
        return f"{self.path} belongs to {_name_of(found.st_uid)}"

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
        from compute_market.store.translation import translated

        with translated(self.path):
            home.make_directories(self.path)

    def check_kept(self, path: str) -> None:
        """Raise UsageError if a file in it is there and cannot be replaced by `keep`."""
        problem = None
        if os.path.islink(path):
            problem = home.LINK
        elif os.path.isdir(path):
            problem = "is a directory"
        elif os.path.exists(path) and not os.path.isfile(path):
            problem = "not a regular file"
        if problem is not None:
            raise UsageError(f"{path}: {problem}", hint="move it out of the way")

    def keep(self, path: str, text: str) -> None:
        """Write a file in it at once. Raises UsageError, or BusyError when the disk is full."""
        from tb_cli.frame import results

        self.check_kept(path)
        results.replace(path, text, beside=None)
        home.give_to_owner(path)

    def _check_directory(self) -> None:
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise UsageError(f"{self.path} is not a directory", hint="give another --home")


def amounts_are_text(given: str | None) -> bool:
    """What an option or a variable says of amounts in JSON."""
    form = given or os.environ.get(JSON_AMOUNTS, "integer")
    if form in ("integer", "string"):
        return form == "string"
    from compute_market.text import clipped

    raise UsageError(
        f"{JSON_AMOUNTS}: {clipped(form)!a} is neither integer nor string",
        hint="unset it, or give one of the two",
    )


def locate(option: str | None) -> Home:
    """The home an operator means: the option, else the variable, else `~/.the_block`.

    Raises UsageError for an empty name, a `~` that stands for no directory, or a name that is no
    text.
    """
    if option is not None:
        given, source = option, "--home"
    else:
        given, source = os.environ.get(VARIABLE, DEFAULT), VARIABLE
    if not given:
        raise UsageError(f"{source} is empty", hint="give a directory, or leave it out")
    path = os.path.expanduser(given)
    if given[:1] == "~" and (path[:1] == "~" or not _is_expanded(given)):
        if given == DEFAULT:
            raise UsageError("no home directory is known", hint=f"give --home or {VARIABLE}")
        raise UsageError(f"{given}: no such home directory of a user", hint=_HINT)
    path = os.path.abspath(path)
    if legible(path) != path:
        raise UsageError(f"the home directory {path} is not UTF-8")
    return Home(path)


def check_elsewhere(home_path: str, path: str) -> None:
    """Raise UsageError for a directory that is the home's own: bundles are not put there."""
    own = home.own_part(home_path, path)
    if own is not None:
        raise UsageError(
            f"dir:{quoted(path)} leads into {quoted(own)}, which belongs to the market itself",
            hint="give a directory outside of the home, or dir:outbox in the settings",
        )


def _is_expanded(given: str) -> bool:
    """Whether a `~` stands for something: a HOME that is set but empty does not."""
    return given[1:2] not in ("", "/") or os.environ.get("HOME") != ""


def _name_of(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
