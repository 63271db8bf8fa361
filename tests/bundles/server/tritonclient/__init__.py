"""A stand-in for NVIDIA's client, which serves a model repository in the same process."""
