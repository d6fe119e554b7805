"""Error rates of a model, in the vocabulary of ISO/IEC 19795-1."""
