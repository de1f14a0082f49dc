"""Settings as they are shown: what is in force and where it came from, and near names."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from compute_market.config.files import BY_NAME, nearest
from compute_market.config.rows import SETTINGS, VARIABLES, Setting, file_form, json_form
from compute_market.config.settings import DEFAULTS, Config
from compute_market.errors import UsageError
from compute_market.text import clipped

_SHOWN_MAX: Final = 60  # characters of a key that a message quotes


class Described(NamedTuple):
    """One setting as it is in force, for people and for programs."""

    name: str
    value: str  # as a file would have it
    typed: bool | int | float | str | list[str]  # as JSON has it
    origin: str


def describe(config: Config, origins: Mapping[str, str]) -> list[Described]:
    """Each setting, as SETTINGS go."""
    return [
        Described(each.name, file_form(each, value), json_form(each, value), origins[each.name])
        for each in SETTINGS
        for value in (getattr(config, each.field),)
    ]


def default_of(setting: Setting) -> Described:
    """The default of a setting."""
    value = getattr(DEFAULTS, setting.field)
    return Described(setting.name, file_form(setting, value), json_form(setting, value), "default")


def setting_of(key: str) -> Setting:
    """What a setting means and may be. Raises UsageError for an unknown key, with the nearest."""
    found = BY_NAME.get(key)
    if found is None:
        near = nearest(key)
        raise UsageError(
            f"KEY: {clipped(key, _SHOWN_MAX)!a} is no setting",
            hint=f"did you mean {near}?" if near else "`config show` lists every key",
        )
    return found


def near_variable(name: str) -> str | None:
    """The variable of a setting that one which names none looks most like."""
    near = nearest(name.removeprefix(VARIABLES).lower())
    return BY_NAME[near].variable if near else None
