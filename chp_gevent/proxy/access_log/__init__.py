"""The access log: lines, batches of them, and where they go."""
