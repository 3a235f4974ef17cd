"""The channels that several kinds of device share: one meaning, one unit, one place in the registries.

LwM2M paths are ``object/resource`` of the OMA registry and of uCIFI's objects in it (34xx); air quality is 3428.
"""

from drivers.contract import Channel

TEMPERATURE = Channel("air temperature", "Cel", "3303/5700")
HUMIDITY = Channel("relative humidity", "%RH", "3304/5700")
PRESSURE = Channel("air pressure", "Pa", "3323/5700")
ILLUMINANCE = Channel("illuminance", "lx", "3301/5700")
CO2 = Channel("carbon dioxide", "ppm", "3428/17")
PM1 = Channel("particles up to 1 um", "ug/m3", "3428/5")
PM2_5 = Channel("particles up to 2.5 um", "ug/m3", "3428/3")
PM4 = Channel("particles up to 4 um", "ug/m3")
PM10 = Channel("particles up to 10 um", "ug/m3", "3428/1")


def larger_than(size_um: str) -> Channel:
    """Describe a number concentration of particles by optical size, as PMS5003 counts them."""
    return Channel(f"number of particles larger than {size_um} um", "1/cm3")


def up_to(size_um: str) -> Channel:
    """Describe a number concentration of particles by size, as SPS30 counts them."""
    return Channel(f"number of particles up to {size_um} um", "1/cm3")
