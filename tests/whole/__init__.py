"""The whole gateway, as a process or nearly so."""
