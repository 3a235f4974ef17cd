"""The same tests against each sort of broker that poles are connected to: one mosquitto, clusters of others."""
