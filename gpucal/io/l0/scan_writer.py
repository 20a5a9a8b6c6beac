"""Write an L0 store as an instrument does: scan after scan, subscan by subscan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from gpucal.errors import L0Error
from gpucal.io.chunks.zarr_metadata import scan_name
from gpucal.io.files import atomic
from gpucal.io.files.json_text import plain
from gpucal.io.l0.checks import gain_image
from gpucal.io.l0.group import group_context
from gpucal.io.l0.group_writer import GroupPlan, L0GroupWriter
from gpucal.io.l0.schema import GroupName, parse_scan_attrs
from gpucal.io.l0.staging import StagedScan
from gpucal.io.l0.store import ScanPlace, load_scan
from gpucal.io.l0.write import create_l0, existing_root
from gpucal.io.l0.zarr_arrays import Codec, compressors


class L0Writer:
    """An L0 store that an instrument writes: scans are begun, grow by subscans, and are closed.

        with gpucal.L0Writer("night.zarr", telescope=..., instrument=..., site=...) as night:
            with night.begin(25650, attrs={"source": "Orion KL", "f_eff": 0.95}) as scan:
                loads = scan.group("calibration", signal_freq=461e9, ...)
                loads.add(counts, "HOT", mjd=60310.25, exptime=4.0, elevation=0.9, ..., thot=295.0)

    A scan appears in the store when it is closed, whole; one that is abandoned, left by an
    exception or killed leaves nothing. ``begin(..., publish=True)`` shows each subscan at once.
    Leaving the block abandons the scans that are still open.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        telescope: str | None = None,
        instrument: str | None = None,
        site: Mapping[str, float] | None = None,
        zarr_format: Literal[2, 3] = 3,
        **attrs: Any,
    ) -> None:
        """Create the store as ``create_l0`` does, or append to the one that is there.

        telescope, instrument, site (lat_deg, lon_deg, deg, alt_m, m): all three, or none to append
        only. attrs: further attributes of a new store. Leftovers of killed processes are removed.
        Raises L0Error when ``path`` is something else, or a store of another instrument.
        """
        self.path = Path(path)
        self._open: dict[int, L0ScanWriter] = {}
        named = (telescope, instrument, site)
        with atomic.as_write_error(self.path, kind=L0Error):
            if telescope is not None and instrument is not None and site is not None:
                create_l0(
                    path,
                    telescope=telescope,
                    instrument=instrument,
                    site=site,
                    zarr_format=zarr_format,
                    **attrs,
                )
            elif any(value is not None for value in named):
                raise L0Error("telescope, instrument and site are expected together, or none.")
            self._root, self._zarr_format = existing_root(self.path)
            atomic.clean_stale(self.path)

    def begin(
        self,
        number: int,
        *,
        attrs: Mapping[str, Any],
        band_attrs: Mapping[str, Mapping[str, Any]] | None = None,
        codec: Codec | str = "zstd:1",
        chunk_channels: int | None = None,
        publish: bool = False,
    ) -> L0ScanWriter:
        """Start a scan; nothing of it is in the store until it is closed.

        attrs: attributes of the scan, band_attrs: of its bands, by name. codec, chunk_channels: as
        in ``write_l0_scan``. publish: the scan appears with its first subscan and grows, with the
        attribute ``complete`` false until it is closed; readers follow it with ``partial``. Raises
        L0Error for an attribute that cannot be right, or when the scan is there or begun already.
        """
        self._open = {known: scan for known, scan in self._open.items() if scan.is_open}
        if number in self._open:
            raise L0Error("the scan is begun already.", hint="Close or abandon it.", scan=number)
        plan = GroupPlan(codec, chunk_channels, publish)
        scan = L0ScanWriter(self, number, attrs, band_attrs or {}, plan)
        self._open[number] = scan
        return scan

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Zarr format of the store."""
        return self._zarr_format

    @property
    def root_attrs(self) -> dict[str, Any]:
        """Attributes of the store's root."""
        return self._root.model_dump()

    def close(self) -> None:
        """Abandon the scans that are still open."""
        for scan in self._open.values():
            scan.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class L0ScanWriter:
    """A scan being written, made by ``L0Writer.begin``; a context manager that closes it.

    When the block raises, the scan is abandoned.
    """

    def __init__(
        self,
        writer: L0Writer,
        number: int,
        attrs: Mapping[str, Any],
        band_attrs: Mapping[str, Mapping[str, Any]],
        plan: GroupPlan,
    ) -> None:
        """Raises L0Error as ``L0Writer.begin``."""
        import zarr

        self.number = number
        self._writer, self._plan = writer, plan
        self._attrs = {"complete": True, **attrs, "scan_number": number}
        self._band_attrs = {band: dict(values) for band, values in band_attrs.items()}
        self._groups: dict[tuple[str, GroupName], L0GroupWriter] = {}
        self._visible = False
        with self._errors():
            for values in ({}, *self._band_attrs.values()):
                parse_scan_attrs({**self._attrs, **values})
            compressors(plan.codec, writer.zarr_format)
            self._staged = StagedScan(writer.path, number)
            self._place = self._staged.path
            now = {**self._attrs, "complete": False} if plan.published else self._attrs
            zarr.create_group(
                str(self._place), zarr_format=writer.zarr_format, attributes=plain(now)
            )
        self.is_open = True

    def group(self, name: GroupName, band: str = "", **constant: Any) -> L0GroupWriter:
        """The group ``name`` ("source", "calibration") of a band, to which subscans are added.

        constant: small arrays that hold for every subscan, a number or as in ``L0GroupWriter.add``
        (signal_freq, tamb, pixel offsets [R, A], ...). They are given with the first call for the
        group. Raises L0Error for another name, an unknown array, or constants given again.
        """
        self._check_open()
        if name not in ("source", "calibration"):
            raise L0Error(
                f"group {name!r} is unknown, expected source or calibration.", scan=self.number
            )
        found = self._groups.get((band, name))
        if found is not None:
            if constant:
                raise L0Error(
                    f"{name}/ is there already, its arrays for all subscans cannot be given again.",
                    scan=self.number,
                    band=band,
                )
            return found
        with self._errors():
            context = group_context(self.number, band, name, self._attrs_of(band), partial=False)
            made = L0GroupWriter(
                context,
                self._plan,
                first=lambda: self._new_group(name, band),
                written=lambda folder: self._show(folder, name, band),
                constant=constant,
            )
        self._groups[band, name] = made
        return made

    def close(self, *, complete: bool | None = None, **attrs: Any) -> None:
        """Check the scan as a reader does and put it in its place, synced to disk.

        complete: whether all was observed; by default it was, unless fewer subscans than
        ``n_subscans_planned`` are there. An incomplete scan may lack loads or references. attrs:
        attributes known only now. Raises L0Error when a reader would; the scan then stays open.
        """
        self._check_open()
        whole = self._is_whole() if complete is None else complete
        self._attrs = {**self._attrs, **attrs, "complete": whole, "scan_number": self.number}
        with self._errors():
            parse_scan_attrs(self._attrs)
            for (band, _), group in self._groups.items():
                group.finish()
                gain_image(self._attrs_of(band).get("gain_image"), group.shape)
            self._check_as_reader(partial=not whole)
            self._set_attrs(self._attrs)
            if self._visible:
                atomic.sync_tree(self._place)
            else:
                self._staged.put_in_place(sync=True)
        self._end()

    def abandon(self) -> None:
        """Drop the scan; one that is published keeps its subscans and stays incomplete.

        Does nothing after ``close``.
        """
        if self.is_open:
            self._end()

    def _end(self) -> None:
        """Close all groups and remove what is still staged; used by ``close`` and ``abandon``."""
        self.is_open = False
        for group in self._groups.values():
            group.closed = True
        self._staged.discard()

    def _is_whole(self) -> bool:
        """Whether each band has as many subscans as planned, in source/ or else calibration/."""
        main = {band: self._groups.get((band, "source")) for band, _ in self._groups}
        counted = [
            (group or self._groups[band, "calibration"]).n_subscans for band, group in main.items()
        ]
        planned = self._attrs.get("n_subscans_planned")
        return planned is None or all(count >= planned for count in counted)

    def _check_as_reader(self, *, partial: bool) -> None:
        """Load the scan where it is now, with the attributes that it will have."""
        import zarr

        place = ScanPlace(
            self.number, self._writer.root_attrs, str(self._writer.path), plain(self._attrs)
        )
        zscan = zarr.open_group(str(self._place), mode="r", use_consolidated=False)
        load_scan(zscan, place, partial=partial)

    def _attrs_of(self, band: str) -> dict[str, Any]:
        """Attributes of a band: its own override those of the scan."""
        return {**self._attrs, **self._band_attrs.get(band, {})}

    def _new_group(self, name: GroupName, band: str) -> Path:
        """An empty Zarr group, in the scan while that is staged, else beside the store."""
        import zarr

        zarr_format = self._writer.zarr_format
        if band and not (self._place / band).exists():
            attrs = plain(self._band_attrs.get(band, {}))
            zarr.create_group(str(self._place / band), zarr_format=zarr_format, attributes=attrs)
        folder = self._place / band / name
        if self._visible:
            folder = atomic.new_staged(self._writer.path, f"{scan_name(self.number)}.{name}")
        zarr.create_group(str(folder), zarr_format=zarr_format, overwrite=True)
        return folder

    def _show(self, folder: Path, name: GroupName, band: str) -> Path:
        """Let readers see a group that has its first subscan, when the scan is published."""
        if self._plan.published and self._visible:
            atomic.rename_into_place(folder, self._place / band / name)
        elif self._plan.published:
            self._staged.put_in_place()
            self._place, self._visible = self._staged.final, True
        return self._place / band / name

    def _set_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Add to the attributes of the scan where it is now: staged, or published."""
        import zarr

        zarr.open_group(str(self._place), mode="r+", use_consolidated=False).attrs.update(
            plain(attrs)
        )

    def _check_open(self) -> None:
        if not self.is_open:
            raise L0Error("the scan is already closed or abandoned.", scan=self.number)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Give errors of the block the scan number; an OSError becomes an L0Error."""
        try:
            with atomic.as_write_error(self._writer.path, self.number, kind=L0Error):
                yield
        except L0Error as error:
            raise error.locate(scan=self.number) from error.__cause__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.is_open:
                self.close()
        finally:
            self.abandon()
