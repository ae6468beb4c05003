"""Equilibrium reasoning: a learned operator iterated to a fixed point."""
