"""The option ``--scans``, the same for every command."""

from __future__ import annotations

from gpucal.errors import ConfigError


def chosen_scans(text: str | None) -> frozenset[int] | None:
    """The numbers of a list such as ``1,5-9``; None, all scans, where nothing is given.

    Raises ConfigError (exit code 64) for anything else.
    """
    from gpucal.scan_numbers import parse_scans

    try:
        return parse_scans(text or "")
    except ValueError as error:
        raise ConfigError(f"--{error}.") from None
