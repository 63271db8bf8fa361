"""Damaged and hostile input: every parser returns a value or raises an error of this package."""
