"""Requests per second and added latency of the gateway, against a proxy that does nothing, in the same run."""
