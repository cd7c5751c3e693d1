"""What several ideas share and no call spends its time in."""
