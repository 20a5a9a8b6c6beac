"""Calibrate a night while it is being observed: jobs in directories, tasks, results, a page."""
