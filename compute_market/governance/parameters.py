"""What a proposal may change: keys, bounds, and values as operators write them."""

from typing import Any, Final

from compute_market.amounts import MICRO, format_ppm
from compute_market.config.settings import Config
from compute_market.errors import RefusedError, UsageError
from compute_market.records import PARAMETER_KEYS
from compute_market.text import clipped

# The settings, by key, and the fields of `Config` that hold them. Bounds are those of the settings.
FIELDS: Final = dict(
    zip(
        PARAMETER_KEYS,
        (
            "min_capacity",
            "fair_share_cap_ppm",
            "burst_refill_rate_micro",
            "comfort_threshold_p90",
        ),
        strict=True,
    )
)
READ_ONLY: Final = ("burst_quota",)
_IN_MILLIONTHS: Final = ("fair_share_cap", "burst_refill_rate")
_SHOWN_MAX: Final = 60  # characters of a key that a message quotes


def parse(key: str, text: str) -> int:
    """A value as `Config` holds it, of the text that a configuration file would have.

    Raises UsageError for an unknown key, with the nearest one, and for what is no number within the
    bounds; RefusedError (`read_only`) for a key that only the configuration may set.
    """
    check_key(key)
    from compute_market.config import files  # Only whoever proposes reads settings.

    value = files.value_of(key, text, "VALUE")
    assert isinstance(value, int)
    return value


def check_key(key: str) -> None:
    """Raise UsageError unless proposals may change it, and RefusedError if nothing but the
    configuration may."""
    if key in READ_ONLY:
        raise RefusedError(
            f"{key} is read-only: no proposal can change it",
            hint=f"set {key} in config.toml",
            reason="read_only",
        )
    if key not in FIELDS:
        from difflib import get_close_matches

        near = get_close_matches(key, (*PARAMETER_KEYS, *READ_ONLY), 1)
        raise UsageError(
            f"KEY: {clipped(key, _SHOWN_MAX)!a} is none of {', '.join(PARAMETER_KEYS)}",
            hint=f"did you mean {near[0]}?" if near else None,
        )


def bounds(key: str) -> tuple[int, int]:
    """The least and the most value of a parameter, as `Config` holds it."""
    from compute_market.config import files

    return files.bounds_of(key)


def number(key: str, value: int) -> int | float:
    """A value in the unit of the configuration, for documents and metrics."""
    return value / MICRO if key in _IN_MILLIONTHS else value


def text(key: str, value: int) -> str:
    """A value as one writes it into a configuration file."""
    if key not in _IN_MILLIONTHS:
        return str(value)
    decimal = format_ppm(value)
    return decimal if "." in decimal else f"{decimal}.0"


def of(config: Config, key: str) -> int:
    """The value of a parameter under some settings."""
    value: int = getattr(config, FIELDS[key])
    return value


def numbers(config: Config) -> dict[str, Any]:
    """Every parameter in the unit of the configuration, by key."""
    return {key: number(key, of(config, key)) for key in PARAMETER_KEYS}
