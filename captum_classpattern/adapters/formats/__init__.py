"""The formats of checkpoints, a file each."""
