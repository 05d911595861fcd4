"""The job of `fedtune-bench work job` as a Flower app."""
