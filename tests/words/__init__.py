"""What travels, and what a receiver may rely on."""
