"""Gradients of pairs: how they hang together, and where a step takes both responses."""

from prefbench.engines.gradients.domains import domain_products
from prefbench.engines.gradients.prober import Prober
from prefbench.engines.gradients.probing import Probing, TokenPair
from prefbench.engines.gradients.untrained import randomly_initialised

__all__ = ["Prober", "Probing", "TokenPair", "domain_products", "randomly_initialised"]
