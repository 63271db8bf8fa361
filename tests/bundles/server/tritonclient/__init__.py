"""A stand-in for NVIDIA's client. It runs the models of a repository itself, in this process."""
