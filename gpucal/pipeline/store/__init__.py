"""One local run over a store: scans in, L1 out, failures reported. Several processes belong in spread."""
