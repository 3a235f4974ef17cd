"""Words: frozen values and pure functions. They know nothing of the rest, and do nothing to the world."""
