"""The way out: MQTT over TCP, TLS or WebSocket, to the best broker that answers."""
