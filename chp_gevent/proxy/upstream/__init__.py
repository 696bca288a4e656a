"""The side towards targets: pools of connections, connections, exchanges on them."""
