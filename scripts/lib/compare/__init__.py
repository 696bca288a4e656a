"""Comparing what clients and targets see of this server and of configurable-http-proxy."""
