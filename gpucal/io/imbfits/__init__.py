"""IMBFITS of the IRAM 30m to L0: its files, axes, dumps and pointing. What all importers share belongs in incoming."""
