"""The doors to the machine, and the service on it."""
