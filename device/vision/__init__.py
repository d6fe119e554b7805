"""From pixels to identities.

The parts are cameras, detector, tracker, alignment, embedder and gallery.
"""
