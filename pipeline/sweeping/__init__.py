"""Many variants on one machine: what is pending, why, what it will cost, and doing it."""
