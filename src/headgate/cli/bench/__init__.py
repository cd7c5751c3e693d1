"""What ``headgate bench`` is made of."""
