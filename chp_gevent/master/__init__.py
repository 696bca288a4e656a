"""The master process: gunicorn's arbiter, and what it supervises."""
