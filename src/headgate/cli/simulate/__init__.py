"""What ``headgate simulate`` is made of."""
