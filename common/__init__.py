"""The library behind the commands."""

__version__ = "1.0.0"
