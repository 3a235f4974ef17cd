"""The buffer, on real files."""
