"""The steps composed into runs over scans and stores. Equations belong in physics and steps, file formats in io."""
