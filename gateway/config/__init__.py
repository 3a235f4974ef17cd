"""A configuration as it stands in files: TOML in, frozen settings out, every fault in the words of the file."""
