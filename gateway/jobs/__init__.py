"""What runs for ever between the doors. Jobs are strangers to each other."""
