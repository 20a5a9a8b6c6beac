# %% [markdown]
# # A night from simulation to maps
#
# A synthetic night is simulated, calibrated, opened and drawn, and the result is compared with
# the truth that went into it. Needs `pip install 'gpucal[plot]' xarray`.
# Everything is written into the current folder.

# %%
from pathlib import Path

import numpy as np

import gpucal
from gpucal.simulate import compare_to_truth, load_truth

# %% [markdown]
# ## Simulate
#
# `gpucal simulate` writes raw counts like those of a receiver with 2 x 9 pixels at 230 GHz, and
# the opacities they were made with. On the command line:
#
#     gpucal simulate night.zarr --preset hera --scans 4 --seed 1 --truth truth.npz

# %%
command = ["simulate", "night.zarr", "--preset", "hera", "--scans", "4", "--seed", "1"]
assert gpucal.main([*command, "--truth", "truth.npz"]) == 0

# %% [markdown]
# ## Inspect
#
# What is in the store, which load serves which scan, and what is wrong with it (here nothing).

# %%
assert gpucal.main(["inspect", "night.zarr"]) == 0

# %%
night = gpucal.open_l0("night.zarr")
print(night)
print(night[1])  # with bands night[1, "band_1"]; the counts stay on disk

# %% [markdown]
# ## Calibrate
#
# `gpucal calibrate night.zarr l1.zarr --atmosphere night.zarr.atm.npz` does the same. A scan that is
# there with the same options is skipped, so the call can be repeated.

# %%
config = gpucal.CalibrationConfig(atmosphere="night.zarr.atm.npz")
print(config)
print(gpucal.calibrate_store("night.zarr", "l1.zarr", config))

# %% [markdown]
# ## Open
#
# Nothing is read before it is used: an array of the store is a Zarr array, and `to_xarray` gives
# a dataset with frequencies, times and positions as coordinates.

# %%
store = gpucal.open_l1("l1.zarr")
print(store)
ds = store.to_xarray(1)
print(*(f"{name} {size}" for name, size in sorted(ds.sizes.items())), sep=", ")
print("coordinates:", *sorted(ds.coords))

# %%
mean = ds.spectra.mean(["dump", "subscan", "receiver", "array"]).compute()
peak = mean.argmax("channel")
print(f"strongest channel {int(peak)} at {float(ds.frequency[peak]) / 1e9:.4f} GHz:", end=" ")
print(f"{float(mean[peak]):.3f} K, mean over the map")
qa = store[1].attrs["qa"]
print(f"PWV {qa['pwv']:.4f} +- {qa['pwv_error']:.4f} mm, T_rec {qa['t_rec_median']:.1f} K")

# %% [markdown]
# ## Draw
#
# `gpucal plot l1.zarr -o pictures --l0 night.zarr --window=-40,40`. The raw store adds the counts of
# the loads; the window, in km/s, is what maps integrate.

# %%
options = gpucal.PlotOptions(l0="night.zarr", window="-40,40")
files = gpucal.plot_store("l1.zarr", "pictures", options=options)
print(*(file.as_posix() for file in files if "000001" in file.name), sep="\n")

# %% [markdown]
# The mean spectrum of the scan with the transmission of the air behind it, single pixels, and T_sys:
#
# ![Spectra of scan 1](pictures/scan_000001_spectra.png)
#
# The array:
#
# ![T_rec, T_sys and noise of the pixels](pictures/scan_000001_array.png)
#
# What the loads gave, the map, and the night so far:
#
# ![Counts on the loads and T_rec](pictures/scan_000001_loads.png)
#
# ![Integrated line](pictures/scan_000001_map.png)
#
# ![The night](pictures/night.png)

# %% [markdown]
# ## Compare with the truth
#
# `python -m gpucal.simulate l1.zarr truth.npz` prints the full table. Spectra differ from the truth by their
# noise, the rest by what noise does to it.

# %%
rows = [row for row in compare_to_truth("l1.zarr", "truth.npz") if row.scan == 1]
for row in rows:
    print(f"{row.quantity:13} rms {row.rms:9.3g}  largest {row.largest:9.3g} {row.unit}")

# %% [markdown]
# Averaging beats the noise down, so the mean over many dumps must come closer: here the noise of one
# sample and of the mean over all dumps, pixels and receivers, and what is left of it after the line.

# %%
truth = load_truth("truth.npz")[1, ""]
spectra = store[1]["spectra"]
difference = []
for s, subscan in enumerate(store[1]["on_index"][:].tolist()):
    difference.append(spectra[..., s] - truth.t_a_star(subscan))
difference = np.stack(difference, axis=-1)
good = np.isfinite(difference)
mean = np.where(good, difference, 0).sum(axis=(1, 2, 3, 4)) / good.sum(axis=(1, 2, 3, 4))
one, many = np.nanstd(difference), np.nanstd(mean)
samples = good.sum(axis=(1, 2, 3, 4)).mean()
print(f"one sample {one:.3f} K, mean of {samples:.0f} samples {1e3 * many:.1f} mK")
print(f"bias of the mean over all channels {1e3 * np.nanmean(mean):.2f} mK")
assert many < 0.05 * one

# %%
assert all(Path(file).stat().st_size > 5000 for file in files)
