"""Emulated devices, one module a driver, each from the datasheet alone."""
