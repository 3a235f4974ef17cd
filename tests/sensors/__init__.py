"""Who reads the devices, on emulated lines and an emulated air."""
