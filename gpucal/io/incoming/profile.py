"""What a user sets once for a telescope, where the files do not say it: a TOML file with a table per format.

[sam45]
f_eff = 0.95

[imbfits]
gain_image = 0.05

[imbfits.receiver.HERA1]      # for one receiver alone
pixel_offsets = [[-24, 24], [0, 24]]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucal.errors import ConfigError, did_you_mean

RECEIVER = "receiver"


@dataclass(frozen=True)
class ProfileKey:
    """One thing that a profile may set.

    meaning: for people; unit; limits: lowest and highest number; choices: the words, or whole numbers, allowed;
    shape: "number", "word", "numbers" (a list), "pairs" (a list of [x, y]).
    """

    meaning: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    choices: tuple[str | int, ...] = ()
    shape: str = "number"

    def trouble(self, value: Any) -> str:
        """Why a value cannot be right: what was expected; "" when it can."""
        if self.choices:
            wanted = " or ".join(repr(c) for c in self.choices)
            good = value in self.choices and not isinstance(value, bool)
            return "" if good else f"expected {wanted}"
        if self.shape == "word":
            return "" if isinstance(value, str) and value else "expected a word"
        if self.shape == "number":
            return self._of_numbers([value], "a number")
        if not isinstance(value, list) or not value:
            return f"expected a list of {self.shape}"
        if self.shape == "pairs":
            if any(not isinstance(pair, list) or len(pair) != 2 for pair in value):
                return "expected a list of pairs [x, y]"
            value = [number for pair in value for number in pair]
        return self._of_numbers(value, "numbers")

    def _of_numbers(self, values: list[Any], what: str) -> str:
        lo, hi = self.limits or (-float("inf"), float("inf"))
        unit = f" {self.unit}" if self.unit else ""
        wanted = f"expected {what}{unit}" + (f" of {lo:g}..{hi:g}" if self.limits else "")
        good = all(
            isinstance(v, int | float) and not isinstance(v, bool) and lo <= v <= hi for v in values
        )
        return "" if good else wanted


F_EFF = ProfileKey("forward efficiency", limits=(0.05, 1.0))
GAIN_IMAGE = ProfileKey("gain of the image sideband over that of the signal", limits=(0.0, 100.0))
T_HOT = ProfileKey("temperature of the hot load", "K", (100.0, 450.0))
T_COLD = ProfileKey("temperature of the cold load", "K", (1.0, 350.0))
ANTENNA_SHIFT = ProfileKey("added to the times of the antenna's positions", "s", (-60.0, 60.0))
PIXEL_OFFSETS = ProfileKey(
    "offset of each pixel, in the order of the array", "arcsec", shape="pairs"
)
COMMON = {"f_eff": F_EFF, "gain_image": GAIN_IMAGE, "t_hot": T_HOT, "t_cold": T_COLD}
"""Keys that most formats have: take them over with ``{**COMMON, ...}``."""


@dataclass(frozen=True)
class Profile:
    """The table of one format: values by key, and those of single receivers."""

    values: Mapping[str, Any] = field(default_factory=dict)
    receivers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def get(self, key: str, receiver: str = "") -> Any:
        """What the user set, for this receiver if it is there; None where nothing is set."""
        return self.receivers.get(receiver, {}).get(key, self.values.get(key))


def load_profile(path: Path, name: str, keys: Mapping[str, Mapping[str, ProfileKey]]) -> Profile:
    """The table ``name`` of a profile; keys: what each format allows, by the name of the format.

    Raises ConfigError for a file that cannot be read, an unknown table or key, and an impossible value,
    also in the tables of other formats.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the profile {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the profile {path} is not valid TOML: {error}.") from error
    for table, content in document.items():
        if table not in keys or not isinstance(content, dict):
            raise ConfigError(
                f"the profile {path} has {table!r}, expected tables named "
                f"{', '.join(f'[{n}]' for n in keys)}.",
                hint=did_you_mean(table, keys),
            )
        for place, values in _tables(table, content, path):
            _check(place, values, keys[table], path)
    mine = document.get(name, {})
    receivers = mine.get(RECEIVER, {})
    return Profile({k: v for k, v in mine.items() if k != RECEIVER}, receivers)


def _tables(table: str, content: Mapping[str, Any], path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The table itself and those of its receivers, with their places for messages."""
    receivers = content.get(RECEIVER, {})
    whole = isinstance(receivers, dict) and all(isinstance(v, dict) for v in receivers.values())
    if not whole:
        raise ConfigError(
            f"the profile {path}: {table}.{RECEIVER} is {receivers!r}, expected tables "
            f"[{table}.{RECEIVER}.NAME]."
        )
    own = {k: v for k, v in content.items() if k != RECEIVER}
    return [(table, own), *((f"{table}.{RECEIVER}.{n}", v) for n, v in receivers.items())]


def _check(
    place: str, values: Mapping[str, Any], keys: Mapping[str, ProfileKey], path: Path
) -> None:
    for key, value in values.items():
        if key not in keys:
            raise ConfigError(
                f"the profile {path}: [{place}] has the key {key!r}, expected "
                f"{', '.join(keys) or 'none'}.",
                hint=did_you_mean(key, keys),
            )
        if trouble := keys[key].trouble(value):
            raise ConfigError(f"the profile {path}: {key} in [{place}] is {value!r}, {trouble}.")
