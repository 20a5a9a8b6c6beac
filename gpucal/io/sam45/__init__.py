"""Import of SAM45 logs of the Nobeyama 45 m telescope into L0. What importers share belongs in incoming."""
