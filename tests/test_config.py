"""The options of a calibration: what a field says of itself, and what is said of a wrong one."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal import (
    CalibrationConfig,
    ConfigError,
    atmosphere_for,
    calibrate_store,
    load_config,
    reduce_scan,
)
from gpucal.config import GROUPS
from gpucal.online.site.config import OnlineConfig, load_online_config

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tau": -1}, "tau is -1, expected a number at least 0 in Np."),
    ({"tau": "thick"}, "tau is 'thick', expected a number at least 0 in Np."),
    ({"tau": True}, "tau is True, expected a number at least 0 in Np."),
    ({"pwv": True}, "pwv is True, expected fit or a number above 0 in mm."),
    ({"pwv": np.True_}, "pwv is True, expected fit or a number above 0 in mm."),
    ({"workers": True}, "workers is True, expected a whole number at least 0."),
    ({"workers": 1.5}, "workers is 1.5, expected a whole number at least 0."),
    ({"t_atm_offset": float("nan")}, "t_atm_offset is nan, expected a number in K."),
    ({"ozone_scale": float("inf")}, "ozone_scale is inf, expected a number at least 0."),
    ({"f_eff": 1.5}, "f_eff is 1.5, expected a number above 0 and at most 1."),
    (
        {"gain_interpolate": 1},
        "gain_interpolate is 1, expected 0, 2 or 3.",
    ),
    ({"fold": "maybe"}, "fold is 'maybe', expected true or false."),
    (
        {"line_scale": "sbs"},
        "line_scale is 'sbs', expected ssb or dsb; did you mean 'ssb'?",
    ),
    ({"tua": 0.1}, "option 'tua' does not exist; did you mean 'tau'?"),
    ({"thot": 290}, "option 'thot' does not exist; did you mean 't_hot'?"),
    ({"bananas": 1}, "option 'bananas' does not exist."),
    ({"scans": "5-1"}, "scans holds the range '5-1', which runs backwards."),
    ({"scans": []}, "scans is [], expected a text."),
    ({"scans": [1, "x"]}, "scans is [1, 'x'], expected a text."),
    (
        {"scans": "1-99999999999"},
        "scans holds the range '1-99999999999', expected at most 1000000 scans.",
    ),
    (
        {"receiver": {"t_hot": 290}},
        "option 'receiver' does not exist (keys stand alone, without a [section]).",
    ),
    (
        {"tau": -1, "mode": 7},
        "mode is 7, expected auto, tp, otf, otf-chopped, nod, fsw or wsw; "
        "tau is -1, expected a number at least 0 in Np.",
    ),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_option_is_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CalibrationConfig(**given)
    assert str(caught.value) == said
    assert caught.value.__cause__ is None
    assert "pydantic" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"expected|exist|backwards"):
        calibrate_store("/no/such/store", "/no/such/out", given)


def test_a_file_is_named_when_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text("tua = 0.1\n")
    with pytest.raises(ConfigError) as caught:
        calibrate_store("/no/such/store", "/no/such/out", path)
    assert str(caught.value) == (
        f"{path}: option 'tua' does not exist; did you mean 'tau'? See gpucal calibrate --help."
    )
    path.write_text("tau = 0.1\n")
    with pytest.raises(ConfigError, match=r"^mode is 'x'"):  # the file is not to blame
        load_config(path, mode="x")
    path.write_text("t-hot = 290.0\nt_hot = 291.0\n")
    with pytest.raises(ConfigError, match="gives t_hot twice"):
        load_config(path)
    path.write_text("tau = true\n")
    with pytest.raises(ConfigError, match="tau is True, expected a number"):
        load_config(path)


def test_what_may_be_given_for_a_configuration() -> None:
    """All functions that take one take a dict; nothing else is guessed."""
    assert atmosphere_for({"tau": 0.1}, {}) is None
    assert atmosphere_for({"t-hot": 290.0, "atmosphere": "none"}, {}) is None
    with pytest.raises(ConfigError, match=r"config is 3, expected a CalibrationConfig, a dict"):
        calibrate_store("a", "b", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"config is \['tau'\]"):
        reduce_scan("a", 1, config=["tau"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="option 'tua' does not exist"):
        reduce_scan("a", 1, config={"tua": 1})


def test_values_in_the_words_of_python(tmp_path: Path) -> None:
    config = CalibrationConfig(
        scans=[1, np.int64(5)],
        atmosphere=tmp_path / "table.npz",
        devices=range(2),
        elevation_low=np.float32(5),
        skydiff=0,
    )
    assert (config.scans, config.devices) == ("1,5", "0,1")
    assert config.atmosphere == str(tmp_path / "table.npz")
    assert CalibrationConfig(scans=7).scans == "7"


def test_a_copy_is_checked_and_a_configuration_does_not_change() -> None:
    config = CalibrationConfig(tau=0.1)
    changed = config.model_copy(update={"t_hot": 290})
    assert (changed.tau, changed.t_hot) == (0.1, 290.0)
    with pytest.raises(ConfigError, match="tau is -1, expected"):
        config.model_copy(update={"tau": -1})
    with pytest.raises(ConfigError, match="option 'tua' does not exist"):
        config.model_copy(update={"tua": 1})
    with pytest.raises(ConfigError, match=r"tau cannot be set: .*model_copy"):
        config.tau = 0.2  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert hash(config) == hash(CalibrationConfig(tau=0.1))


def test_every_field_says_what_it_is() -> None:
    text = CalibrationConfig.__doc__ or ""
    for name, info in CalibrationConfig.model_fields.items():
        assert info.description, name
        assert f"    {name}" in text
        assert info.description in text
    assert set(GROUPS.values()) <= set(CalibrationConfig.model_fields)


def test_a_configuration_as_toml_reads_back(tmp_path: Path) -> None:
    config = CalibrationConfig(
        tau=0.1, fold=False, scans="1,5", atmosphere="none", codec="zstd:3", pwv=2.5
    )
    path = tmp_path / "night.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert load_config(path) == config
    text = path.read_text(encoding="utf-8")
    assert "# Zenith opacity, with atmosphere none (a number at least 0 in Np)\ntau = 0.1\n" in text
    assert "#t-hot =\n" in text  # no value, but there
    odd = CalibrationConfig(atmosphere='C:\\new "x".npz')
    path.write_text(odd.to_toml(), encoding="utf-8")
    assert load_config(path) == odd


def test_the_online_configuration_speaks_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "online.toml"
    path.write_text("[calibration]\ntua = 0.1\n")
    with pytest.raises(ConfigError) as caught:
        load_online_config(path)
    assert str(caught.value) == (
        f"{path}: calibration: option 'tua' does not exist; did you mean 'tau'?"
    )
    path.write_text("atempts = 3\n")
    with pytest.raises(ConfigError, match="option 'atempts' does not exist; did you mean"):
        load_online_config(path)
    with pytest.raises(ConfigError, match=r"^attempts is 0, expected a whole number at least 1"):
        OnlineConfig(attempts=0)
    with pytest.raises(ConfigError, match="poll is True, expected a number above 0"):
        load_online_config(None, poll=True)
