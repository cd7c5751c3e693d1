"""What ``headgate limit`` is made of."""
