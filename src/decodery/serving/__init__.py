"""Serves models over HTTP: one thread steps the engines, an event loop answers the clients."""
