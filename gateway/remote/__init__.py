"""Configuration over the air: signed documents, tried before they are kept, and taken back where they do harm."""
