"""polegate: the agent in a smart light pole.

Four floors; imports go down only::

    wiring   __main__, cli, app     the commands; app knows all the others and starts them
    jobs     poll, listen, ...      run for ever, strangers to each other
    doors    line, radio, ...       each owns one thing outside the process
    words    settings, senml, ...   frozen values and pure functions

Data flow one way: device, line or radio, driver, reading, pack, buffer, forward, uplink.
"""
