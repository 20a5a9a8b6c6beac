"""gpucal calibrate: options, configuration file, exit codes, output for people and machines."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from gpucal import CalibrationConfig, L0Error, StoreReport, load_config, main
from gpucal.cli.commands.calibrate import option_name
from gpucal.pipeline.store.report import Failure, ScanSummary

SAMPLE = {
    # field: (what is typed, what the configuration must hold)
    "scans": ("1,5-9", "1,5-9"),
    "flags": ("rules.toml", "rules.toml"),
    "mode": ("otf-chopped", "otf-chopped"),
    "cal_scheme": ("vane-channel", "vane-channel"),
    "t_hot": ("290.5", 290.5),
    "t_cold": ("77", 77.0),
    "hot_coupling": ("0.97", 0.97),
    "cold_coupling": ("0.98", 0.98),
    "f_eff": ("0.95", 0.95),
    "gain_image": ("0.1", 0.1),
    "gain_interpolate": ("3", 3),
    "spike_sigma": ("6.5", 6.5),
    "vane_sky": ("sky", "sky"),
    "vane_average": ("median", "median"),
    "vane_airmass": ("each", "each"),
    "pixel_t_rec": ("4", 4.0),
    "pixel_sky": ("0.2", 0.2),
    "max_cal_age": ("1200", 1200.0),
    "cal_bandwidth": ("20 MHz", "20MHz"),
    "clip_counts": ("0.02", 0.02),
    "clip_trec": ("5000", 5000.0),
    "clip_tsys": ("50", 50.0),
    "noise_bandwidth": ("1.16", 1.16),
    "line_scale": ("dsb", "dsb"),
    "physics": ("kalibrate", "kalibrate"),
    "atmosphere": ("none", "none"),
    "pwv": ("0.6", 0.6),
    "pwv_scope": ("per-pair", "per-pair"),
    "fit_sky": ("both", "both"),
    "airmass": ("spherical", "spherical"),
    "airmass_per": ("dump", "dump"),
    "ozone_scale": ("1.2", 1.2),
    "ozone": ("fit", "fit"),
    "opacity_trust": ("0.1", 0.1),
    "t_atm": ("260", 260.0),
    "t_atm_factor": ("0.95", 0.95),
    "t_atm_offset": ("-5", -5.0),
    "t_cab": ("290", 290.0),
    "tau": ("0.4", 0.4),
    "error_t_hot": ("0.5", 0.5),
    "error_t_cold": ("3", 3.0),
    "error_f_eff": ("0.02", 0.02),
    "error_g_image": ("0.05", 0.05),
    "error_t_amb": ("5", 5.0),
    "error_t_cab": ("4", 4.0),
    "error_pwv": ("0.2", 0.2),
    "reference": ("per-dump", "per-dump"),
    "elevation_low": ("15", 15.0),
    "skydiff": ("2", 2),
    "precision": ("noise", "noise:16"),
    "dtype": ("f32", "f32"),
    "codec": ("blosc-lz4", "blosc-lz4"),
    "backend": ("cpu", "cpu"),
    "workers": ("2", 2),
    "scheduler": ("tcp://host:8786", "tcp://host:8786"),
    "devices": ("0, 1", "0,1"),
    "io": ("host", "host"),
    "kernels": ("plain", "plain"),
    "ring": ("64", 64),
    "alarm_rms_low": ("0.1", 0.1),
    "alarm_rms_high": ("5", 5.0),
    "alarm_t_hot_low": ("250", 250.0),
    "alarm_t_hot_high": ("310", 310.0),
    "alarm_t_cold_high": ("100", 100.0),
    "alarm_t_rec": ("9000", 9000.0),
    "alarm_t_sys": ("500", 500.0),
    "alarm_chi2": ("9", 9.0),
    "alarm_altitude": ("1000", 1000.0),
    "alarm_flagged": ("0.9", 0.9),
}
BOOLEANS = {
    *("strict", "partial", "overwrite", "dbs_coupling", "scale_off_airmass", "fold", "skychopdiff"),
}
GOOD = ScanSummary(
    scan=1,
    band="",
    mode="tp",
    status="calibrated",
    pwv=0.61,
    pwv_error=0.01,
    t_rec=101.0,
    t_sys=250.0,
    t_sys_star=310.0,
    sidebands="DSB",
    rms_ratio=1.01,
    flagged_fraction=0.02,
    seconds=2.0,
    bytes_read=10**8,
    warnings=("the load is old.",),
    timing={"load_ms": 12.0, "atm_ms": 5.4, "wall_ms": 2000.0},
)
BAD = ScanSummary(scan=2, band="", mode="tp", status="failed", error="scan 2: no OFF subscan.")
FAILURE = Failure(2, "prepare", "PairingError", "scan 2: no OFF subscan.", "Use --mode auto.")


class FakeBatch:
    """Stands in for the pipeline: tells a short story and keeps what it was given."""

    def __init__(self) -> None:
        self.report = StoreReport((GOOD,), ())
        self.config: Any = None  # a CalibrationConfig, once called
        self.command_line: list[str] = []
        self.raises: BaseException | None = None

    def calibrate_store(
        self,
        l0: Path,
        out: Path,
        config: CalibrationConfig,
        *,
        observer: Any,
        command_line: list[str],
    ) -> StoreReport:
        self.config, self.command_line = config, command_line
        if self.raises is not None:
            raise self.raises
        observer.night_started([s.scan for s in self.report.summaries], 2 * 10**8)
        for summary in self.report.summaries:
            observer.scan_started(summary.scan, summary.band, 10**8)
            observer.tile_done(summary.scan, summary.band, 5 * 10**7)
            observer.scan_finished(summary)
        observer.message("info", "done")
        return self.report


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> FakeBatch:
    fake = FakeBatch()
    module: Any = types.ModuleType("gpucal.pipeline.calibrate")
    module.calibrate_store = fake.calibrate_store
    monkeypatch.setitem(sys.modules, "gpucal.pipeline.calibrate", module)
    return fake


def test_every_field_has_an_option_and_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--help"]) == 0
    shown = "".join(c for c in capsys.readouterr().out if c.isalnum() or c in "-=*")
    for field, info in CalibrationConfig.model_fields.items():
        assert option_name(field) in shown
        assert info.description
        assert info.description[0].isupper() or field == "codec"
        assert info.description.endswith(".")
    assert set(SAMPLE) | BOOLEANS == set(CalibrationConfig.model_fields)


@pytest.mark.parametrize("field", sorted(SAMPLE))
def test_option_reaches_the_configuration(batch: FakeBatch, field: str) -> None:
    typed, wanted = SAMPLE[field]
    assert getattr(load_config(), field) != wanted  # else the test could not fail
    assert main(["calibrate", "a", "b", "--quiet", option_name(field), typed]) == 0
    assert getattr(batch.config, field) == wanted
    assert type(getattr(batch.config, field)) is type(wanted)


@pytest.mark.parametrize("field", sorted(BOOLEANS))
def test_switches_work_both_ways(batch: FakeBatch, field: str) -> None:
    name = option_name(field)
    assert main(["calibrate", "a", "b", "--quiet", name]) == 0
    assert getattr(batch.config, field) is True
    assert main(["calibrate", "a", "b", "--quiet", "--no-" + name[2:]]) == 0
    assert getattr(batch.config, field) is False


def test_file_shows_through_and_command_line_wins(batch: FakeBatch, tmp_path: Path) -> None:
    toml = tmp_path / "night.toml"
    toml.write_text('t-hot = 280.0\nfold = false\npwv = "fit"\nmode = "otf"\n')
    args = ["calibrate", "a", "b", "--quiet", "--config", str(toml), "--t-hot", "291"]
    assert main([*args, "--pwv", "1.5"]) == 0
    assert (batch.config.t_hot, batch.config.fold) == (291.0, False)
    assert (batch.config.pwv, batch.config.mode) == (1.5, "otf")
    assert batch.command_line == ["gpucal", *args, "--pwv", "1.5"]


def test_pwv_fit_on_the_command_line_beats_a_number_in_the_file(
    batch: FakeBatch, tmp_path: Path
) -> None:
    toml = tmp_path / "night.toml"
    toml.write_text("pwv = 1.0\n")
    assert main(["calibrate", "a", "b", "--quiet", "--config", str(toml), "--pwv", "fit"]) == 0
    assert batch.config.pwv == "fit"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--mode", "bogus"], "mode is 'bogus'"),
        (["--pwv", "wet"], "pwv is 'wet', expected fit or a number"),
        (["--t-hot", "warm"], "t_hot is 'warm', expected a number above 0 in K"),
        (["--workers", "2.5"], "workers is '2.5', expected a whole number at least 0"),
        (["--gain-interpolate", "1"], "gain_interpolate is 1, expected 0, 2 or 3"),
        (["--mode", "odf"], "did you mean 'otf'?"),
        (["--t-hot", "-3"], "t_hot is -3.0"),
        (["--no-such-option"], "No such option: --no-such-option"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml cannot be read"),
        (["--scans", "9-5"], "runs backwards"),
        (["--quiet", "--json"], "exclude each other"),
    ],
)
def test_wrong_usage_is_one_sentence_and_64(
    batch: FakeBatch, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert main(["calibrate", "a", "b", *args]) == 64
    streams = capsys.readouterr()
    assert streams.out == ""
    assert words in streams.err
    assert streams.err.startswith("gpucal: error: ")
    assert streams.err.count("\n") == 1
    assert batch.config is None


def test_out_inside_the_raw_store_is_refused(
    batch: FakeBatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "night.zarr"
    for out in (raw, raw / "l1.zarr"):
        assert main(["calibrate", str(raw), str(out)]) == 64
        assert "raw store" in capsys.readouterr().err
    assert batch.config is None


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (StoreReport((GOOD,), ()), 0),
        (StoreReport((BAD,), (FAILURE,)), 1),
        (StoreReport((GOOD, BAD), (FAILURE,)), 2),
        (StoreReport((GOOD,), (), interrupted=True), 130),
    ],
)
def test_exit_code_is_that_of_the_report(
    batch: FakeBatch, capsys: pytest.CaptureFixture[str], report: StoreReport, code: int
) -> None:
    batch.report = report
    assert main(["calibrate", "a", "b", "--quiet"]) == code
    assert ("interrupted; what is finished stays" in capsys.readouterr().err) == (code == 130)


def test_errors_of_the_pipeline(batch: FakeBatch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.raises = L0Error("a does not exist.", hint="Check the path.")
    assert main(["calibrate", "a", "b"]) == 1
    assert capsys.readouterr().err == "gpucal: error: a does not exist. Check the path.\n"
    batch.raises = KeyboardInterrupt()
    assert main(["calibrate", "a", "b"]) == 130
    assert "interrupted" in capsys.readouterr().err
    batch.raises = ZeroDivisionError("division by zero")
    assert main(["calibrate", "a", "b"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero." in err
    assert "--verbose" in err
    assert "Traceback" not in err
    assert main(["calibrate", "a", "b", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_table_is_honest_and_plain(batch: FakeBatch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.report = StoreReport(
        (GOOD, BAD, ScanSummary(3, "", "tp", "skipped"), ScanSummary(4, "", "tp", "calibrated")),
        (FAILURE, Failure(9, "load", "LoadError", "no load scan.", "")),
    )
    assert main(["calibrate", "a", "b"]) == 2
    streams = capsys.readouterr()
    assert "\x1b" not in streams.out + streams.err
    rows = {line.split()[0]: line.split() for line in streams.out.splitlines() if line.strip()}
    assert streams.out.split()[:4] == ["PWV", "T_rec", "T_sys", "T_sys*"]
    assert [word for word in streams.out.split() if "[" in word] == [
        "[mm]",
        "[K]",
        "[K]",
        "[K]",
        "[%]",
        "[s]",
    ]
    assert rows["1"][1:5] == ["tp", "0.610", "±", "0.010"]
    assert rows["1"][5:9] == ["101.0", "250.0", "DSB", "310.0"]
    assert rows["1"][-1] == "calibrated"
    assert rows["2"][-1] == "failed"
    assert rows["3"][-1] == "skipped"
    assert rows["4"][2:7] == ["-"] * 5
    assert rows["9"][-1] == "failed"
    assert "2 calibrated, 1 skipped, 2 failed" in streams.out
    assert "warning (scan 1): the load is old." in streams.out
    assert (
        "failed (scan 2 in prepare): PairingError: no OFF subscan. Use --mode auto." in streams.out
    )
    assert "L1 store: b" in streams.out
    assert "failures: b/failures.json" in streams.out


def test_equal_warnings_are_listed_once_with_their_scans(
    batch: FakeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ("the load is old.",)
    scans = [ScanSummary(n, "", "tp", "calibrated", warnings=old) for n in (1, 2, 3, 7)]
    batch.report = StoreReport(tuple(scans), ())
    main(["calibrate", "a", "b"])
    out = capsys.readouterr().out
    assert out.count("the load is old.") == 1
    assert "warning (scans 1-3, 7): the load is old." in out


def test_plain_lines_hold_the_timing(batch: FakeBatch, capsys: pytest.CaptureFixture[str]) -> None:
    main(["calibrate", "a", "b"])
    err = capsys.readouterr().err
    assert (
        "INFO    scan timing breakdown scan=1 load_ms=12 resolve_ms=0 prepare_ms=0 atm_ms=5 "
        "calibrate_ms=0 write_ms=0 wall_ms=2000\n"
    ) in err
    assert "[1/1] scan 1 calibrated in 2.0 s: tp, PWV 0.610 ± 0.010 mm" in err
    assert "50 MB/s" in err


def test_quiet_says_only_what_went_wrong(
    batch: FakeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.report = StoreReport((GOOD, BAD), (FAILURE,))
    assert main(["calibrate", "a", "b", "--quiet"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert "scan 2 failed: no OFF subscan." in streams.err


def test_json_is_one_valid_object_per_line(
    batch: FakeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.report = StoreReport((GOOD, BAD), (FAILURE,))
    assert main(["calibrate", "a", "b", "--json"]) == 2
    streams = capsys.readouterr()

    def refuse(text: str) -> None:
        raise ValueError(text)

    events = [json.loads(line, parse_constant=refuse) for line in streams.out.splitlines()]
    names = [event["event"] for event in events]
    story = ["scan_started", "tile_done", "scan_finished"]
    assert names == ["night_started", *story, *story, "message", "report"]
    assert events[6]["pwv"] is None  # NaN is no JSON
    assert events[-1]["exit_code"] == 2
    assert events[-1]["failures"][0]["stage"] == "prepare"
    assert events[-1]["summaries"][0]["timing"]["load_ms"] == 12.0
    assert streams.err == ""
