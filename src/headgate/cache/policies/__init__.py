"""The eviction policies, one file each per twin."""
