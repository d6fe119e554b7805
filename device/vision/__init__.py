"""From pixels to identities: cameras, detector, tracker, alignment, embedder, gallery."""
