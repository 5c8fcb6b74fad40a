"""Trojans in an ImageNet network: drawings, planting, and what is measured of them."""
