"""The jobs, one by one."""
