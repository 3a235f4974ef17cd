"""Doors to the machine: its clocks, its log, systemd, small files."""
