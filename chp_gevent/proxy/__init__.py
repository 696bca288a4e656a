"""The data plane: what runs in a proxy worker."""
