"""MBFITS (APEX, Effelsberg and others) to L0: tables, times, axes, feeds, phases. What importers share is in incoming."""
