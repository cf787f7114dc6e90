"""Certificates: maps whose Lipschitz constants are known, and reports about those that are not."""

from eqdiff_jax.contraction.lipschitz import aol, cayley

__all__ = ["aol", "cayley"]
