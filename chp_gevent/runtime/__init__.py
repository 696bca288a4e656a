"""What any process needs of Python and the system; imports nothing of ours but itself."""
