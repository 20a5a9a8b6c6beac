"""The steps of calibration on a scan's arrays. Order, threads and disks belong in pipeline."""
