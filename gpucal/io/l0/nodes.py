"""The nodes of a Zarr group as they lie on disk: metadata documents, small arrays, codings.

What others cached of them, as consolidated metadata, does not count. Source: the Zarr v2 and v3 core
specifications.
"""

from __future__ import annotations

import json
import math
import os
import warnings as python_warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalError, L0Error, words_of
from gpucal.io.chunks.small_arrays import read_whole
from gpucal.io.conventions.attributes import (
    StoredArray,
    coding_of,
    decoded_attributes,
    decoded_values,
)
from gpucal.io.conventions.coding import Coding
from gpucal.io.files.regular import largest_file, read_document
from gpucal.io.l0.packed import folders_in_zip
from gpucal.io.l0.schema import ARRAYS, COUNTS, TRACK_ARRAYS


def node_of(zgroup: Any, name: str) -> Any:
    """A group or array of a Zarr group, None when it is not there.

    Its own metadata document counts, not a copy in the consolidated metadata of a group above.
    Raises L0Error when it is there but its metadata document cannot be understood.
    """
    try:
        return as_on_disk(as_on_disk(zgroup).get(name))
    except GpucalError:
        raise
    except Exception as error:  # Zarr raises whatever its JSON and metadata parsers raise
        place = f"{zgroup.path}/{name}".lstrip("/")
        reason = words_of(error) or "they describe no group or array of Zarr"
        if isinstance(error, json.JSONDecodeError):
            reason = f"not valid JSON: {reason}"
        if _fill_is_null(zgroup, name):
            raise L0Error(
                f"the zarr.json of {place} has fill_value null, expected a number.",
                hint='Write -2147483648 there for integer counts, "NaN" for floats, 0 for others; '
                "or leave this scan out with --scans.",
            ) from error
        raise L0Error(
            f"the metadata of {place} (its zarr.json, or .zarray, .zgroup) cannot be read: "
            f"{reason}.",
            hint="Restore it from a copy, or leave this scan out with --scans.",
        ) from error


def as_on_disk(node: Any) -> Any:
    """The group without consolidated metadata, which are a copy and may be older than the arrays.

    Zarr hands out those in the metadata of a child group even where its parent was opened without.
    """
    metadata = getattr(node, "metadata", None)
    if getattr(metadata, "consolidated_metadata", None) is None:
        return node
    import zarr

    return zarr.open_group(
        node.store,
        path=node.path,
        mode="r",
        zarr_format=node.metadata.zarr_format,
        use_consolidated=False,
    )


def child_names(group: Any) -> list[str]:
    """Names of the groups below a Zarr group, without opening them where the store is local."""
    from zarr.storage import LocalStore, ZipStore

    if isinstance(group.store, LocalStore):
        folder = Path(group.store.root) / group.path
        with os.scandir(folder) as entries:
            return [e.name for e in entries if not e.name.startswith(".") and _is_folder(e)]
    if isinstance(group.store, ZipStore):
        return folders_in_zip(Path(group.store.path), group.path)
    with python_warnings.catch_warnings():  # Zarr warns about files that are no Zarr objects
        python_warnings.simplefilter("ignore")
        return list(as_on_disk(group).group_keys())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link that leads nowhere: opening it says what is wrong."""
    try:
        return entry.is_dir() or (entry.is_symlink() and not entry.is_file())
    except OSError:  # a loop of links
        return True


def children_of(group: Any, name: str) -> list[str]:
    """Names of the groups in a child that may be missing or an array."""
    node = node_of(group, name)
    return [] if node is None or hasattr(node, "shape") else child_names(node)


def group_of(group: Any, name: str) -> Any:
    """A child that must be a group; raises L0Error when it is not."""
    node = node_of(group, name)
    if node is None or hasattr(node, "shape"):
        raise L0Error(
            f"{name} is not a Zarr group.", hint="Its zarr.json or .zgroup is missing or broken."
        )
    return node


def _fill_is_null(zgroup: Any, name: str) -> bool:
    """Whether an array's zarr.json in a folder has the fill value null, as some writers make of NaN."""
    root = getattr(zgroup.store, "root", None)
    if root is None:
        return False
    try:
        text = read_document(Path(root) / zgroup.path / name / "zarr.json")
        document = json.loads(text)
        return document["node_type"] == "array" and document["fill_value"] is None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def values_of(name: str, node: Any) -> npt.NDArray[Any]:
    """A Zarr array read whole; raises L0Error for too large a one, CorruptDataError for one that cannot be decoded."""
    store = node.store
    if isinstance(getattr(store, "most", None), dict):
        shard = getattr(node, "shards", None) or node.chunks
        store.most[node.path] = largest_file(math.prod(shard) * np.dtype(node.dtype).itemsize)
    return read_whole(name, node)


def stored_array(name: str, node: Any) -> StoredArray:
    """A known array of an L0 group as its attributes describe it."""
    rule = ARRAYS.get(name)
    unit = rule.unit if rule else TRACK_ARRAYS[name]
    labels = rule is not None and "f" not in rule.kinds
    times = unit == "d"
    return StoredArray(name, unit, dict(node.attrs), node.fill_value, times, labels)


def decoded_node(name: str, node: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Values of a known small array in our unit, and the attributes that then belong to them."""
    about = stored_array(name, node)
    stored = values_of(name, node)
    values = decoded_values(about, stored)
    return values, dict(node.attrs) if values is stored else decoded_attributes(about)


def counts_coding(node: Any) -> Coding:
    """How the counts of an L0 group are stored; raises L0Error for attributes that are not understood."""
    return coding_of(stored_array(COUNTS, node), np.dtype(node.dtype))
