"""MBFITS (APEX, Effelsberg) to L0: its tables, axes, feeds, phases. What all importers share belongs in incoming."""
