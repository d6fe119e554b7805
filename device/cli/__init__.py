"""The commands of `wfm-device`, one module each."""
