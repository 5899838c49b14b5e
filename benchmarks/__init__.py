"""Kept measurements. Each script says in its head how it is run; none of them is installed."""
