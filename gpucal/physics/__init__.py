"""The equations; every function takes the array namespace from its arguments."""
