"""The eviction policies, a file each for either twin."""
