"""The shared memory between the management process and the workers."""
