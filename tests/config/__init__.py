"""What a technician writes, and what he reads when it is wrong."""
