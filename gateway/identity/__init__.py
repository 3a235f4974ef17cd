"""Who a pole is to the broker: its key and certificate. Only the command line comes here; the gateway never does."""
