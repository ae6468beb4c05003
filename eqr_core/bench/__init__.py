"""What `eqr bench engine` measures; docs/performance.md says how to read it."""
