"""Processes that do jobs, their supervisor, their status. What a job does belongs in tasks."""
