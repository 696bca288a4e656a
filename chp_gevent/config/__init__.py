"""What a server is told: command line, files, environment."""
