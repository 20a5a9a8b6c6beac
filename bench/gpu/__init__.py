"""Benches of the CUDA backend; ``bench/gpu_run.sh`` runs them all on a card."""
