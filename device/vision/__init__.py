"""From pixels to people: cameras, detector, tracker, alignment, embedder and gallery."""
