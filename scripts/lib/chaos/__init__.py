"""Random failures under mixed traffic: what ``scripts/chaos`` is made of."""
