"""A map as it forms: out of a run store that another process or thread writes."""

from daskumap.watching.show import watch

__all__ = ["watch"]
