"""From the names of hosts to addresses, so that a name without an answer holds nobody else."""
