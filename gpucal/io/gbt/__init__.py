"""Import of GBT SDFITS sessions into L0. SDFITS as a table format belongs in fits."""
