"""The edge: camera, recognition, local store, delivery. Imports nothing heavy by itself."""
