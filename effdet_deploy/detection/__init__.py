"""Detection: pictures go in, detections come out."""
