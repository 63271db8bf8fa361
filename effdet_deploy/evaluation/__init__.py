"""Accuracy: COCO sets, mAP by pycocotools, and paired differences with intervals."""
