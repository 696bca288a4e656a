"""Commands that a person starts, and what they share."""
