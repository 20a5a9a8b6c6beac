"""The records of a SAM45 log, byte by byte: little-endian, packed, without padding.

A log is one ctl, one obs, N dat and one end record; each begins with its type and its length less 8. Only the fields
that are read are named. Source: docs/reference/sam45.md, the table of records.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ARRAYS = 32
"""Arrays (spectra at a time) that a log has room for."""

CHANNELS = 4096
"""Channels that a dat record has room for."""

CTL_BYTES, OBS_BYTES, DAT_BYTES, END_BYTES = 88, 8472, 17064, 8
SPECTRUM_AT = 680
"""Where the spectrum begins in a dat record."""

HEAD_SLACK = 8
"""What irec_len leaves out of a record: its type and irec_len itself."""


def _record(nbytes: int, fields: dict[str, tuple[int, str]]) -> np.dtype[Any]:
    """A dtype of the fields, name -> (offset, format), within a record of so many bytes."""
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for _, form in fields.values()],
            "offsets": [at for at, _ in fields.values()],
            "itemsize": nbytes,
        }
    )


_BEGIN = {"crec_type": (0, "S4"), "irec_len": (4, "<i4")}

CTL = _record(
    CTL_BYTES,
    {**_BEGIN, "cversion": (8, "S8"), "clog_name": (16, "S64"), "cbe_type": (80, "S8")},
)

OBS = _record(
    OBS_BYTES,
    {
        **_BEGIN,
        "dsrc_pos": (48, "(2,3)<f8"),
        "dstrv": (96, "<f8"),
        "dsw_freq": (128, "(32,)<f8"),
        "dflif": (384, "(32,)<f8"),
        "dcent_freq": (640, "(32,)<f8"),
        "dtrk_freq": (896, "(32,)<f8"),
        "dfqdat_f0": (1408, "(32,)<f8"),
        "dfqdat_fq": (1664, "(32,2)<f8"),
        "dfqdat_ch": (2176, "(32,2)<f8"),
        "dbechwid": (2688, "(32,)<f8"),
        "diptim": (5024, "<f8"),
        "ichannel": (5540, "(32,)<i4"),
        "iipint": (5668, "(32,)<i4"),
        "imd_obs": (6328, "u1"),
        "icoord_type": (6329, "u1"),
        "iscan_coord": (6330, "u1"),
        "isw_mod": (6331, "u1"),
        "ivdef": (6332, "u1"),
        "ivref": (6333, "u1"),
        "imlt_no": (6334, "(32,)u1"),
        "iary_ifatt": (6366, "(32,)u1"),
        "iary_usefg": (6430, "(32,)u1"),
        "clog_id": (6465, "S20"),
        "cst_time": (6485, "S16"),
        "cobs_file": (6501, "S20"),
        "cobj_name": (6521, "S16"),
        "csrc_comment": (6537, "S24"),
        "cobs_user": (6561, "S40"),
        "cgroup": (6601, "S10"),
        "cproject": (6611, "S10"),
        "cepoch": (6629, "S8"),
        "cseq_ptn": (6645, "S120"),
        "csid_type": (6765, "(32,)S4"),
        "cfe_type": (6893, "(32,)S10"),
        "chorn_typ": (7213, "(32,)S2"),
        "cpol_typ": (7277, "(32,)S5"),
        "iotf_mode": (7962, "u1"),
    },
)

DAT = _record(
    DAT_BYTES,
    {
        **_BEGIN,
        "dant_real": (24, "(2,)<f8"),
        "dant_vel": (40, "<f8"),
        "dobs_pos": (96, "(2,3)<f8"),
        "dint_edmjd": (208, "<f8"),
        "dint_stmjd": (216, "<f8"),
        "dweather": (232, "(5,)<f8"),
        "iinteg_time": (400, "<i4"),
        "iline_no": (404, "<i4"),
        "inumber_channels": (420, "<i4"),
        "idmy_flag": (473, "u1"),
        "cary_name": (474, "S4"),
        "cint_edtm": (478, "S16"),
        "cint_sttm": (494, "S32"),
        "cscan_type": (526, "S6"),
    },
)

END = _record(END_BYTES, dict(_BEGIN))

HEADS = np.dtype([(name, DAT.fields[name][0]) for name in DAT.names])  # type: ignore[index, union-attr]
"""The named fields of dat records without the spectra, packed."""


def text_of(raw: bytes) -> str:
    """A text up to its first NUL: what follows is left over from longer ones ("ON\\0O")."""
    return raw.partition(b"\0")[0].decode("ascii", "replace").strip()
