"""What a configuration file and variables say about the settings.

Nothing here looks at the environment: that and the content of the file are arguments of `load`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from compute_market import home
from compute_market.amounts import format_ppm, parse_ppm
from compute_market.config import toml
from compute_market.config.rows import (
    KEY_ID_DIGITS,
    SETTINGS,
    VARIABLES,
    Setting,
    Value,
    file_form,
)
from compute_market.config.settings import DEFAULTS, Config
from compute_market.config.toml import DecimalText
from compute_market.errors import UsageError, file_error
from compute_market.records import check_id
from compute_market.text import clipped


class Found(Struct, frozen=True, gc=False):
    """A value as `Config` holds it, and where from: `config.toml:12`, `TB_EPOCH_BLOCKS`."""

    value: Value
    origin: str


_MAIN_SECTION = "compute_market"  # Its keys may stand at the top level as well.
_SECTIONS = (_MAIN_SECTION, "scheduler", "net")
BY_NAME = {setting.name: setting for setting in SETTINGS}
_SHOWN_MAX = 60  # characters of a value that a message quotes
_HEX = frozenset("0123456789abcdef")
_PRINTABLE_INTEGER = 10**40  # Python refuses to print integers of more than 4300 digits.


def content_of(path: str) -> bytes | None:
    """The bytes of a file of settings; None where there is none.

    Raises UsageError, or BusyError where it cannot be read now.
    """
    try:
        return home.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise file_error(path, error) from error


def load(
    content: bytes | str | None = None,
    source: str = "config.toml",
    environment: Mapping[str, str] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Return the settings in force and, by setting name, where each came from.

    A variable of `environment` wins over the file's `content`, which wins over the default;
    `source` is what the file is called in origins and messages. Origins are `default`,
    `<source>:<line>` or the variable's name. Variables that name no setting are left alone.

    Raises UsageError as `parse` does, and when a minimum is above its maximum.
    """
    found = {} if content is None else parse(content, source)
    texts = environment or {}
    given = {name for name in texts if name.startswith(VARIABLES)}
    for setting in SETTINGS if given else ():
        if (variable := setting.variable) in given:
            value = value_of(setting.name, texts[variable], variable)
            found[setting.name] = Found(value, variable)
    origins = dict.fromkeys(BY_NAME, "default")
    origins.update((name, each.origin) for name, each in found.items())
    return config_of(found), origins


def config_of(found: Mapping[str, Found]) -> Config:
    """The settings in force where these were found. Raises UsageError for a minimum above its
    maximum."""
    values: dict[str, Any] = {BY_NAME[name].field: each.value for name, each in found.items()}
    config = Config(**values)
    if config.multiplier_min_ppm > config.multiplier_max_ppm:
        lower, upper = "reputation_multiplier_min", "reputation_multiplier_max"
        origins = {name: found[name].origin if name in found else "default" for name in BY_NAME}
        raise UsageError(
            f"{lower} {format_ppm(config.multiplier_min_ppm)} ({origins[lower]}) is above "
            f"{upper} {format_ppm(config.multiplier_max_ppm)} ({origins[upper]})",
            hint=f"lower {lower} or raise {upper}",
        )
    return config


def parse(content: bytes | str, source: str) -> dict[str, Found]:
    """Return the settings a TOML file holds, by setting name; what it does not hold is absent.

    Raises UsageError with one line that names `source`, the line and the key, for anything that
    is not a known key with a value of its type and within its bounds, written once.
    """
    document, lines = toml.read(content, source)
    return check(document, lines, source)


def check(
    document: dict[str, Any], lines: Mapping[tuple[str, ...], int], source: str
) -> dict[str, Found]:
    """The same of a document that was read, with the lines of its keys."""
    found: dict[str, Found] = {}
    for path, raw in _entries(document):
        key = path[-1] if path[0] == _MAIN_SECTION else ".".join(path)
        origin = f"{source}:{lines[path]}"
        if path[0] in _SECTIONS and len(path) == 1:
            raise UsageError(
                f"{origin}: {key} is a section, not a key", hint=f"write [{key}] on its own line"
            )
        setting = BY_NAME.get(key)
        # A dot may also come from a quoted key, which names no section.
        if setting is None or path not in _paths(setting):
            raise _unknown(path, raw, origin)
        if setting.name in found:
            raise UsageError(
                f"{origin}: {key} is set twice, first at {found[key].origin}",
                hint=f"keep it either at the top level or in [{_MAIN_SECTION}]",
            )
        found[setting.name] = Found(_value(setting, raw, origin), origin)
    return found


def value_of(name: str, text: str, origin: str) -> Value:
    """What a setting holds by a text that does not stand in a file; `origin` says where it does.

    Raises UsageError.
    """
    setting = BY_NAME[name]
    return _value(setting, _typed(setting, text), origin)


def bounds_of(name: str) -> tuple[int, int]:
    """The least and the most that a setting which is a number may hold."""
    least, most = BY_NAME[name].allowed
    return int(least), int(most)


def render_default(*, switched_off: bool = False) -> str:
    """The default configuration file: every setting with its meaning and what it may be.

    `switched_off`, it changes nothing, and other defaults of a later release hold.
    """
    begin = (
        "# Every setting with its default. Copy what you want to change into config.toml in the\n"
        f"# home directory. The keys above [scheduler] may also stand in [{_MAIN_SECTION}]."
    )
    if switched_off:
        begin = (
            "# Every setting with its default. Take away the # in front of what you change;\n"
            f"# all else stays. The keys above [scheduler] may also stand in [{_MAIN_SECTION}]."
        )
    lines = [
        begin,
        "# A variable wins over the file: TB_ and the key in capitals, with the section before",
        "# it where there is one, as in TB_EPOCH_BLOCKS and TB_SCHEDULER_SLOTS. Commas stand",
        "# between the values of a list there. Durations and sizes may be written as text too:",
        '# "90s", "15m", "1h30m", "3d", "64GiB".',
    ]
    off = "#" if switched_off else ""
    section = ""
    for setting in SETTINGS:
        *head, key = setting.name.split(".")
        if head and head[0] != section:
            section = head[0]
            lines += ["", f"[{section}]"]
        lines += ["", *(f"# {line}" for line in setting.help.split("\n"))]
        lines.append(f"# Allowed: {setting.limits}")
        lines.append(f"{off}{key} = {file_form(setting, getattr(DEFAULTS, setting.field))}")
    return "\n".join(lines) + "\n"


def _paths(setting: Setting) -> tuple[tuple[str, ...], ...]:
    path = tuple(setting.name.split("."))
    return (path,) if len(path) > 1 else (path, (_MAIN_SECTION, *path))


def _entries(document: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in document.items():
        if name in _SECTIONS and isinstance(value, dict):
            for key, inner in value.items():
                yield (name, key), inner
        else:
            yield (name,), value


def _value(setting: Setting, raw: Any, origin: str) -> Value:
    """Return `raw` as `Config` holds it, or raise UsageError."""
    if setting.kind in _LISTS:
        return _listed(setting, raw, origin)
    value: int | str | None = None
    if setting.kind == "choice":
        if setting.name == "settle_mode" and raw == "armed":
            raise UsageError(
                f'{origin}: settle_mode: "armed" cannot be configured, only {setting.limits} can',
                hint="arming waits for a block height: run `settle arm --delay-blocks N`",
            )
        value = raw if isinstance(raw, str) else None
    elif setting.kind in _TEXTS or setting.kind in _ADDRESSES:
        value = raw if isinstance(raw, str) else None
    elif setting.kind == "flag":
        value = raw if isinstance(raw, bool) else None
    elif setting.kind == "integer":
        value = raw if type(raw) is int else None  # `true` is an instance of int.
        if isinstance(raw, str):
            value = _quantity(setting, raw)
    elif isinstance(raw, str | DecimalText) or type(raw) is int:
        value = parse_ppm(raw if isinstance(raw, str) else _shown(raw))
    if value is None:
        wanted = {
            "integer": "a whole number",
            "decimal": "a number with at most 6 decimals and no exponent",
            "flag": "true or false",
        }.get(setting.kind, "a string")
        raise UsageError(
            f"{origin}: {setting.name}: expected {wanted}, {setting.limits}; found {_shown(raw)}",
            hint=_way_to_write(setting),
        )
    if setting.kind in _ADDRESSES:
        _check_address(setting, str(value), origin)
        return value
    if setting.kind in _TEXTS:
        allowed = _TEXTS[setting.kind](str(value))
    elif isinstance(value, bool):
        allowed = True
    elif isinstance(value, str):
        allowed = value in setting.allowed
    else:
        least, most = setting.allowed
        allowed = int(least) <= value <= int(most)
    if not allowed:
        raise UsageError(f"{origin}: {setting.name}: {_shown(raw)} is not {setting.limits}")
    return value


def _quantity(setting: Setting, text: str) -> int | None:
    """How many of its unit a duration or size is; None for a text that is neither."""
    from compute_market import quantities  # Most are written as numbers.

    return quantities.in_unit(text, setting.unit) if setting.unit in quantities.UNITS else None


def _way_to_write(setting: Setting) -> str | None:
    from compute_market import quantities

    return quantities.ways_to_write(setting.unit) if setting.unit in quantities.UNITS else None


def _listed(setting: Setting, raw: Any, origin: str) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise UsageError(
            f"{origin}: {setting.name}: expected {setting.limits}; found {_shown(raw)}"
        )
    for each in raw:
        if isinstance(each, str) and setting.kind in _ADDRESSES:
            _check_address(setting, each, origin)
        elif not isinstance(each, str) or not _is_key_id(each):
            what = "address" if setting.kind in _ADDRESSES else _KEY_ID
            raise UsageError(f"{origin}: {setting.name}: {_shown(each)} is no {what}")
    return tuple(raw)


def _check_address(setting: Setting, text: str, origin: str) -> None:
    """Raise UsageError, which shows no password that may be in it."""
    try:
        _ADDRESSES[setting.kind](text)
    except UsageError as error:
        message = f"{origin}: {setting.name}: {error.message}"
        raise UsageError(message, hint=error.hint) from None


def _is_path(text: str) -> bool:
    return text.isprintable() and text[:1] in ("", "/")


def _is_file(text: str) -> bool:
    """A `~` is expanded by nobody here: it would be the name of a directory."""
    is_name = text not in ("", ".", "..") and text[0] != "~" and text[-1] != "/"
    return is_name and text.isprintable()


def _is_key_id(text: str) -> bool:
    return len(text) == KEY_ID_DIGITS and _HEX.issuperset(text)


def _check_url(text: str) -> None:
    from compute_market.config import addresses  # Most homes name none.

    addresses.parse(text)


def _check_destination(text: str) -> None:
    from compute_market.config import addresses

    addresses.check_destination(text)


def _is_id(text: str) -> bool:
    try:
        check_id(text, "key")
    except UsageError:
        return False
    return True


# What a text of a kind must be, and what the values of a list are.
_TEXTS: dict[str, Callable[[str], bool]] = {
    "path": _is_path,
    "file": _is_file,
    "key name": _is_id,
}
_ADDRESSES: dict[str, Callable[[str], None]] = {
    "destination": _check_destination,
    "urls": _check_url,
}
_LISTS = ("key ids", "urls")
_KEY_ID = f"key id of {KEY_ID_DIGITS} lower-case hex digits"


def _typed(setting: Setting, text: str) -> int | str | bool | list[str]:
    """What a file would hold for the text of a variable, as far as it reads as that.

    In a list commas stand between the values.
    """
    if setting.kind in _LISTS:
        return text.split(",") if text else []
    if setting.kind == "flag" and text in ("true", "false"):
        return text == "true"
    digits = text.removeprefix("-")
    if setting.kind == "integer" and digits.isascii() and digits.isdigit() and len(digits) <= 40:
        return int(text)
    return text


def _shown(raw: Any) -> str:
    """A found value in at most some 60 characters of one line."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, int):
        return str(raw) if abs(raw) < _PRINTABLE_INTEGER else "a number of more than 40 digits"
    if isinstance(raw, DecimalText):
        return clipped(raw.text, _SHOWN_MAX)
    if isinstance(raw, str):
        return ascii(clipped(raw, _SHOWN_MAX))
    return {"dict": "a table", "list": "an array"}.get(type(raw).__name__, "a date or time")


def _unknown(path: tuple[str, ...], raw: Any, origin: str) -> UsageError:
    is_section = len(path) == 1 and isinstance(raw, dict)
    if is_section:
        from difflib import get_close_matches

        matches = get_close_matches(path[-1], _SECTIONS, n=1)
        near = f"[{matches[0]}]" if matches else None
    else:
        near = nearest(path[-1])
    name = ".".join(part if part.isascii() and part.isprintable() else ascii(part) for part in path)
    name = clipped(name, 2 * _SHOWN_MAX)
    return UsageError(
        f"{origin}: unknown section [{name}]" if is_section else f"{origin}: unknown key {name}",
        hint=f"did you mean {near}?" if near else "`config show` lists every key",
    )


def nearest(key: str) -> str | None:
    """The name of the setting that a key looks most like, with or without its section."""
    from difflib import get_close_matches

    # The bare key counts too, for whoever knows the key and forgot its section.
    names = {name.split(".")[-1]: name for name in BY_NAME}
    names |= {name.replace(".", "_"): name for name in BY_NAME} | {name: name for name in BY_NAME}
    matches = get_close_matches(key, names, n=1)
    return names[matches[0]] if matches else None
