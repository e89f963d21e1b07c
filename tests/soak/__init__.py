"""Long runs: the whole path with faults, for as long as is asked for."""
