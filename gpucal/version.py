"""The version of gpucal, below everything else: modules that note it need not import the package."""

__version__ = "0.1.0.dev0"
