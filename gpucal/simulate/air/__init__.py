"""The air over a simulated telescope in layers: levels, what they absorb, and the transfer of radiation through them.

Nothing here is shared with the tables and the calibration, which the simulated sky is to put to the test.
"""
