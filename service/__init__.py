"""The solving service: eqr_core behind Ray Serve. Imports eqr_core, never the other way round."""
