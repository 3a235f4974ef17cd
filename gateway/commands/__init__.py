"""The commands of ``polegate``, one module each."""
