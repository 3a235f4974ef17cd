"""polegate: the agent in a smart light pole.

Data flow one way: device, line or radio, driver, reading, pack, buffer, forward, uplink. Rooms; imports go down only::

    __main__, cli, commands   the command line
    app                       the one file that knows all the others and starts them
    remote                    changes of the configuration, by hand and over the air
    jobs                      run for ever, strangers to each other
    sensors, store, link      the ways in, the buffer, the way out
    identity                  a pole's key and certificate, for the command line
    config                    the files of a technician
    host, words               doors to the machine; frozen values and pure functions
"""
