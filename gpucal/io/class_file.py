"""CLASS files of GILDAS (.30m, .apex): ``open_class`` reads them, ``write_class`` writes them."""

from __future__ import annotations

from gpucal.io.class_read import ClassFile, is_class_file, open_class
from gpucal.io.class_write import write_class

__all__ = ["ClassFile", "is_class_file", "open_class", "write_class"]
