"""Drivers: bytes in, quantities out."""
