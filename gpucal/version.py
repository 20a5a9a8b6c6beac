"""Version of gpucal, in a module without imports, so that modules which note it need not import the package."""

__version__ = "0.1.0.dev0"
