"""Changes of the configuration, by an edit or over the air: tried before they are kept, taken back where they harm."""
