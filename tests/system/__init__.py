"""The package on a real system: see ``make test-system``."""
