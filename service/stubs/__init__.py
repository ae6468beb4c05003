"""Made by `make proto` from proto/eqr/v1/solver.proto; not edited."""
