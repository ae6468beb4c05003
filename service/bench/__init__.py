"""`eqr bench serve`: load on a running service, and how it bears it."""
