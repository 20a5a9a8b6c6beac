"""The raw formats there are, by the word of their command. A new one is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from gpucal.errors import ConfigError, did_you_mean
from gpucal.io.incoming.listing import Probe
from gpucal.io.incoming.profile import ProfileKey
from gpucal.io.incoming.protocol import RawFormat

_WHERE = {
    "raw-fits": "gpucal.io.raw_fits.importer:RAW_FITS",
    "imbfits": "gpucal.io.imbfits.importer:IMBFITS",
    "mbfits": "gpucal.io.mbfits.importer:MBFITS",
    "sam45": "gpucal.io.sam45.importer:SAM45",
    "sdfits": "gpucal.io.gbt.importer:GBT",
}
"""Name -> the module and the object in it. ``import auto`` asks in this order: what is surest first."""

NAMES = tuple(_WHERE)


@cache
def format_named(name: str) -> RawFormat:
    """The format of that name; raises ConfigError for another one."""
    if name not in _WHERE:
        raise ConfigError(
            f"the raw format {name!r} is unknown, expected {', '.join(NAMES)} or auto.",
            hint=did_you_mean(name, (*NAMES, "auto")),
        )
    module, _, attribute = _WHERE[name].partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, RawFormat)
    return found


def probes() -> dict[str, Probe]:
    """How each format recognises a file."""
    return {name: format_named(name).probe for name in NAMES}


def profile_keys() -> Mapping[str, Mapping[str, ProfileKey]]:
    """What a profile may set for each format that has something to set."""
    keys = {name: format_named(name).profile_keys for name in NAMES}
    return {name: mine for name, mine in keys.items() if mine}
