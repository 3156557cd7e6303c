"""rucap."""
