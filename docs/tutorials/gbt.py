# %% [markdown]
# # GBT data: DR21 with Argus, M82 at W band
#
# Two observations as the telescope recorded them are imported, calibrated, and their numbers checked:
# the system temperatures, and the velocity of the N2H+ line. Needs
# `pip install 'gpucal[fits,plot]' specutils xarray`, and the SDFITS files of the projects TGBT22A_603_05 and
# AGBT15B_244_07 in folders of these names below `GPUCAL_REALDATA/gbt`.

# %%
import os
import warnings
from pathlib import Path

import numpy as np

import gpucal

warnings.simplefilter(
    "ignore", gpucal.GpucalWarning
)  # what is left out of a file is said on import
data = Path(os.environ["GPUCAL_REALDATA"]) / "gbt"

# %% [markdown]
# ## DR21: a vane, and frequency switching
#
# On the command line:
#
#     gpucal import sdfits TGBT22A_603_05/*.fits dr21.zarr
#     gpucal calibrate dr21.zarr dr21_l1.zarr --airmass gbt --atmosphere none --tau 0.1 --t-atm 273

# %%
gpucal.import_sdfits(sorted((data / "TGBT22A_603_05").glob("*.fits")), "dr21.zarr")
print(gpucal.open_l0("dr21.zarr")[12])

# %% [markdown]
# The load is a vane at ambient temperature, so there is neither T_rec nor a fit of the water: opacity and
# temperature of the air are given, as the observers took them.

# %%
config = gpucal.CalibrationConfig(atmosphere="none", tau=0.1, t_atm=273.0, airmass="gbt")
print(gpucal.calibrate_store("dr21.zarr", "dr21_l1.zarr", config))
scan = gpucal.open_l1("dr21_l1.zarr")[12]
t_sys = scan["t_sys"][:]
print(f"T_sys* = {np.nanmedian(t_sys):.3f} K")
assert abs(np.nanmedian(t_sys) - 234.340397) < 0.005

# %% [markdown]
# ## The line
#
# `to_spectrum1d` gives a `specutils.Spectrum` in the velocity frame of the source, with uncertainties and
# mask. 65536 channels are averaged by 32.

# %%
spectrum = gpucal.to_spectrum1d(scan)
flux = np.ma.masked_array(spectrum.flux.value, spectrum.mask).reshape(-1, 32).mean(axis=1)
velocity = spectrum.velocity.to_value("km/s").reshape(-1, 32).mean(axis=1)
near = np.abs(velocity + 3) < 30
peak = np.flatnonzero(near)[flux[near].argmax()]
print(
    f"line at v_{spectrum.meta['velocity_frame']} = {velocity[peak]:.2f} km/s, {flux[peak]:.2f} K"
)
print(f"noise expected in a channel {np.nanmedian(spectrum.uncertainty.array):.2f} K (ON alone)")
assert abs(velocity[peak] + 2.94) < 0.1

# %%
files = gpucal.plot_store("dr21_l1.zarr", "pictures", 12)

# %% [markdown]
# The negative images of the line 25 MHz to either side come from the fold: frequency switching subtracts
# the line from itself there.
#
# ![DR21](pictures/scan_000012_spectra.png)

# %% [markdown]
# ## M82: hot and cold load, nodding
#
# The W-band receiver has two loads, so T_rec follows, and the water is fitted. There is no table for the site
# here; one of another site shows how far off that can be. T_sys comes from the counts alone too.

# %%
gpucal.import_sdfits(sorted((data / "AGBT15B_244_07").glob("*.fits")), "m82.zarr")
config = gpucal.CalibrationConfig(atmosphere="iram_30m", airmass="gbt", scans="131")
report = gpucal.calibrate_store("m82.zarr", "m82_l1.zarr", config)
print(report)
scan = gpucal.open_l1("m82_l1.zarr")[131]
qa = scan.attrs["qa"]
beams = np.array(qa["t_sys_from_counts"])[0]
gain = np.array(qa["gain_k_per_count"])[0]
for pixel in range(2):
    print(f"beam {pixel}: T_sys from counts {beams[pixel]:.2f} K, {gain[pixel]:.4g} K/count")
assert np.allclose(beams, [106.975, 141.988], rtol=3e-3)
model = np.nanmedian(scan["t_sys"][:], axis=(0, 1, 3))
print("T_rec + J_sky of the model:", np.round(model, 1), "K")

# %%
files += gpucal.plot_store("m82_l1.zarr", "pictures", 131)
assert all(file.stat().st_size > 5000 for file in files)

# %% [markdown]
# ![M82](pictures/scan_000131_spectra.png)
