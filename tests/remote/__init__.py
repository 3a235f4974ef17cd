"""Configuration over the air: what is signed, what lies over what, and what survives which cut."""
