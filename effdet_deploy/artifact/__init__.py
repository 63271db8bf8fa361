"""What an exported file is and says: the spec, its classes and anchors, and reading model files."""
