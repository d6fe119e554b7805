"""Measurements of the product and of bare libraries in one run (`make bench`).

Ratios are comparable between machines, absolute figures are not.
"""
