"""A long stretch of work and what it leaves in memory: what ``scripts/soak`` is made of."""
