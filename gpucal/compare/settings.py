"""What two calibrations of a scan were made with and from: options, code, tables, loads, raw data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpucal.compare.products import Pair
from gpucal.config import CalibrationConfig


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Pair]:
    """Options that differ, by name; one that a version did not have yet counts as its default."""
    defaults = CalibrationConfig().result_keys()
    before, now = ({**defaults, **_mapping(attrs, "config")} for attrs in (old, new))
    keys = sorted(before.keys() | now.keys())
    found = {key: (before.get(key), now.get(key)) for key in keys}
    return {
        key.replace("_", "-"): pair
        for key, pair in found.items()
        if pair[0] != pair[1] and key != "atmosphere"
    }


def origin_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Pair]:
    """Versions, backend, opacity table, load scans and raw data that differ, by name."""
    before, now = (_origin(attrs) for attrs in (old, new))
    keys = sorted(before.keys() | now.keys(), key=lambda key: (key != "gpucal", key))
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def _origin(attrs: Mapping[str, Any]) -> dict[str, Any]:
    made = _mapping(attrs, "provenance")
    table = _mapping(made, "atmosphere_table")
    name = str(table["name"]) if table.get("name") else "none"
    checksum = str(table.get("sha256") or attrs.get("atmosphere_sha256") or "")
    return {
        **{str(k): str(v) for k, v in _mapping(made, "versions").items()},
        "backend": made.get("backend"),
        "atmosphere table": f"{name} {checksum[:8]}".rstrip(),
        "load scans": made.get("load_scans", attrs.get("load_scans")),
        "metadata of the raw data": _sums(attrs.get("l0_metadata_sha256")),
        "counts of the raw data": _sums(made.get("l0_counts_sha256")),
    }


def _sums(found: Any) -> Any:
    """Checksums in short: only whether they are the same matters."""
    if not isinstance(found, Mapping) or not found:
        return None
    return {key: str(value)[:8] for key, value in sorted(found.items())}


def _mapping(attrs: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = attrs.get(name)
    return found if isinstance(found, Mapping) else {}
