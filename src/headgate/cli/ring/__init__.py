"""What ``headgate ring`` is made of."""
