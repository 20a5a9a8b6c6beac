"""A scan that is built beside its L0 store and then renamed into it, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from gpucal.errors import L0Error
from gpucal.io.chunks.zarr_metadata import scan_name
from gpucal.io.files import atomic


class StagedScan:
    """Folder of a scan being written; a context manager that discards what was not put in place.

    Leftovers of a killed process lie outside the store; ``atomic.clean_stale`` removes them.
    """

    def __init__(self, store: str | Path, number: int) -> None:
        """Make the folder ``path``; raises L0Error when the store holds the scan already."""
        self.number = number
        self.final = Path(store).resolve() / scan_name(number)
        self._refuse_existing()
        self.path = atomic.new_staged(store, scan_name(number))

    def put_in_place(self, *, sync: bool = False) -> None:
        """Rename the folder into the store; ``sync``: its content to stable storage before.

        Raises L0Error when the scan has appeared in the store meanwhile.
        """
        if sync:
            atomic.sync_tree(self.path)
        try:
            atomic.rename_into_place(self.path, self.final)
        except FileExistsError:
            self._refuse_existing()
            raise
        self.discard()

    def discard(self) -> None:
        """Remove what is still staged; never raises."""
        atomic.discard(self.path)

    def _refuse_existing(self) -> None:
        if self.final.exists():
            raise L0Error(
                "the scan is already in the store, and raw data are never overwritten.",
                hint="Delete it first, or write to another store.",
                scan=self.number,
            )

    def __enter__(self) -> StagedScan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
